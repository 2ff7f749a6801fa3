"""Foreign listeners on the listen address: which sockets are foreign, and when the log says so."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.core.address import HostPort
from gateway.core.socket_address import address_text
from supervisor.admin.port_monitor import EVERY_TICKS, EVERY_TICKS_FROM_PROC, PortMonitor
from supervisor.core.admin.foreign_listeners import ForeignListeners, Listener, shares
from supervisor.system import sock_diag
from tests.logbook import Logbook
from tests.support import no_descriptors_left

OURS = (HostPort("10.0.0.1", 23790),)
FOREIGN = Listener("10.0.0.1", 23790, inode=7, uid=1000)


@pytest.mark.parametrize(
    ("theirs", "v6_only", "ours", "taken"),
    [
        ("10.0.0.1", False, "10.0.0.1", True),
        ("10.0.0.2", False, "10.0.0.1", False),
        ("0.0.0.0", False, "10.0.0.1", True),
        ("10.0.0.2", False, "0.0.0.0", True),
        ("::", False, "10.0.0.1", True),
        ("::", True, "10.0.0.1", False),
        ("::1", False, "10.0.0.1", False),
        ("10.0.0.1", False, "", True),
        ("::1", False, "", True),
        ("10.0.0.1", False, "::1", False),
    ],
)
def test_who_takes_clients(theirs: str, v6_only: bool, ours: str, taken: bool) -> None:
    """Whoever listens on an address that includes ours, or is included in ours."""
    foreign = Listener(theirs, 23790, inode=1, uid=0, v6_only=v6_only)
    assert shares(foreign, [HostPort(ours, 23790)]) is taken
    assert not shares(foreign, [HostPort(ours, 23791)])


def test_told_once_at_the_second_look() -> None:
    """A worker binds before the master hears of it, so one look is no proof."""
    watch = ForeignListeners(OURS)
    ours = Listener("10.0.0.1", 23790, inode=1, uid=0)
    assert watch.look([ours, FOREIGN], {1}) == ((), ())
    assert watch.look([ours, FOREIGN], {1}) == ((FOREIGN,), ())
    assert watch.look([ours, FOREIGN], {1}) == ((), ())
    assert list(watch.present) == [FOREIGN]
    assert watch.look([ours], {1}) == ((), (FOREIGN,))
    assert list(watch.present) == []


def test_one_of_ours_that_was_late_to_tell_is_none() -> None:
    """Seen before its worker's Bound arrived, ours at the second look."""
    watch = ForeignListeners(OURS)
    watch.look([FOREIGN], set())
    assert watch.look([FOREIGN], {7}) == ((), ())
    assert watch.present == ()


@pytest.mark.parametrize("read", [sock_diag.listeners, sock_diag.listeners_from_proc])
def test_the_kernel_tells_who_listens(read: object) -> None:
    """Both ways, both families, by inode; connections are no listeners."""
    assert callable(read)
    with socket.create_server(("127.0.0.1", 0)) as four:
        port = four.getsockname()[1]
        with (
            socket.create_server(("::1", port), family=socket.AF_INET6) as six,
            socket.create_connection(("127.0.0.1", port)),
        ):
            assert {(each.host, each.inode, each.uid) for each in read([port])} == {
                ("127.0.0.1", os.fstat(four.fileno()).st_ino, os.getuid()),
                ("::1", os.fstat(six.fileno()).st_ino, os.getuid()),
            }
            assert all(each.port == port for each in read([port]))


@pytest.mark.parametrize("read", [sock_diag.listeners, sock_diag.listeners_from_proc])
def test_all_ports_are_asked_for_at_once(read: object) -> None:
    """Those of each listen address, and no others."""
    assert callable(read)
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
        socket.create_server(("127.0.0.1", 0)),
    ):
        ports = [each.getsockname()[1] for each in (one, two)]
        assert sorted(each.port for each in read(ports)) == sorted(ports)
        assert read([]) == []


def test_a_host_without_ipv6_has_one_table(tmp_path: Path) -> None:
    """The other one is not missed; without any, nobody knows."""
    (tmp_path / "tcp").symlink_to("/proc/self/net/tcp")
    net = str(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as four:
        port = four.getsockname()[1]
        assert [each.host for each in sock_diag.listeners_from_proc([port], net)] == ["127.0.0.1"]
        with socket.create_connection(("127.0.0.1", port)) as sock:
            found = [piece for piece in sock_diag.clients_from_proc(port, net) if piece]
            assert found == [{address_text(sock.getsockname()): os.fstat(sock.fileno()).st_ino}]
    with pytest.raises(FileNotFoundError):
        sock_diag.listeners_from_proc([port], f"{net}/nothing")


def test_ipv6_only_is_known() -> None:
    """A socket of all interfaces that takes no IPv4 is told from one that does."""
    with socket.create_server(("::", 0), family=socket.AF_INET6) as only:
        assert [each.v6_only for each in sock_diag.listeners([only.getsockname()[1]])] == [True]
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as both:
        assert [each.v6_only for each in sock_diag.listeners([both.getsockname()[1]])] == [False]


def look(port_monitor: PortMonitor, own: set[int]) -> None:
    for _ in range(EVERY_TICKS):
        port_monitor.tick(own)


@contextlib.contextmanager
def joined(log: Logbook) -> Iterator[tuple[PortMonitor, set[int]]]:
    """A listen address that another socket has joined: its monitor, and the inode of our own."""
    with (
        socket.create_server(("127.0.0.1", 0), reuse_port=True) as ours,
        socket.create_server(ours.getsockname(), reuse_port=True),
    ):
        address = HostPort("127.0.0.1", ours.getsockname()[1])
        yield PortMonitor([address], log), {os.fstat(ours.fileno()).st_ino}


def test_a_foreign_is_shouted_about_once() -> None:
    """The log says who and how to find it; the status shows it until it goes."""
    log = Logbook()
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as ours:
        port, own = ours.getsockname()[1], {os.fstat(ours.fileno()).st_ino}
        port_monitor = PortMonitor([HostPort("127.0.0.1", port)], log)
        with socket.create_server(("127.0.0.1", port), reuse_port=True) as theirs:
            for _ in range(4):
                look(port_monitor, own)
            inode = os.fstat(theirs.fileno()).st_ino
            assert [each["inode"] for each in port_monitor.foreign_listeners] == [inode]
        look(port_monitor, own)
        assert port_monitor.foreign_listeners == ()
    assert [(line["level"], line["inode"]) for line in log.lines] == [
        ("error", inode),
        ("info", inode),
    ]


def test_a_moment_without_descriptors_changes_nothing() -> None:
    """The next look works as the ones before; nothing is said of a lack of permission."""
    log = Logbook()
    with joined(log) as (port_monitor, own):
        with no_descriptors_left():
            look(port_monitor, own)
        assert log.lines == []
        for _ in range(2):
            look(port_monitor, own)
        assert len(port_monitor.foreign_listeners) == 1


def test_where_netlink_is_forbidden_proc_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less often, for it costs more."""

    def forbidden(_port: int) -> list[Listener]:
        raise PermissionError("no netlink in this sandbox")

    monkeypatch.setattr(sock_diag, "listeners", forbidden)
    log = Logbook()
    with joined(log) as (port_monitor, own):
        for _ in range(3 * EVERY_TICKS_FROM_PROC):
            port_monitor.tick(own)
        assert len(port_monitor.foreign_listeners) == 1
    assert [line["level"] for line in log.lines] == ["debug", "error"]
