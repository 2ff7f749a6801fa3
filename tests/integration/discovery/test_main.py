"""The gateway and DNS: found, followed, kept, guarded."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from supervisor.cli import reload as reload_command
from supervisor.cli.admin_client import fetch_status
from tests.backends import Backend, greet
from tests.clients import asked, connect, greeted, talk
from tests.dns import Fault, NameServer
from tests.gateway import READY, Gateway, run_command, running
from tests.support import free_port, wait_until

PLAIN = "_etcd-client._tcp.example.test"


@pytest.fixture
def ns() -> Iterator[NameServer]:
    with NameServer() as server:
        server.set("host.example.test", "A", "127.0.0.1")
        yield server


@pytest.fixture
def backends() -> Iterator[list[Backend]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Backend(greet, name=f"b{n}")) for n in range(3)]


def flags(ns: NameServer, *more: str) -> tuple[str, ...]:
    return (
        "--discovery-srv=example.test",
        "--insecure-discovery",
        f"--nameserver={ns.address}",
        *more,
    )


def publish(ns: NameServer, *records: tuple[int, int, Backend], ttl: int = 5) -> None:
    texts = (f"{priority} {weight} {b.port} host.example.test." for priority, weight, b in records)
    ns.set(PLAIN, "SRV", *texts, ttl=ttl)


def ended(sock: socket.socket) -> Callable[[], bool]:
    sock.setblocking(False)

    def look() -> bool:
        try:
            return sock.recv(100) == b""
        except BlockingIOError:
            return False
        except ConnectionError:
            return True

    return look


def test_a_changed_zone_is_followed(ns: NameServer, backends: list[Backend]) -> None:
    """New sessions go to the new endpoints after the TTL; nobody is restarted."""
    one, two, _ = backends
    publish(ns, (0, 0, one))
    with running(*flags(ns)) as gateway:
        assert asked(gateway.address) == "b0"
        workers = gateway.workers()
        publish(ns, (0, 0, two))
        wait_until(lambda: asked(gateway.address) == "b1", 10)
        (line,) = gateway.lines("endpoints changed")
        assert line["added"] == [f"host.example.test:{two.port}"]
        assert line["removed"] == [f"host.example.test:{one.port}"]
        assert gateway.workers() == workers


def test_sighup_follows_at_once_and_keeps_workers_and_sessions(
    ns: NameServer, backends: list[Backend]
) -> None:
    """HUP resolves now, whatever the TTL; workers and sessions stay."""
    one, two, _ = backends
    publish(ns, (0, 0, one), ttl=300)
    with running(*flags(ns)) as gateway:
        sock, name = greeted(gateway.address)
        assert name == "b0"
        workers = gateway.workers()
        publish(ns, (0, 0, two), ttl=300)
        gateway.signal(signal.SIGHUP)
        gateway.wait_line("reload complete")
        wait_until(lambda: asked(gateway.address) == "b1")
        assert gateway.workers() == workers
        talk(sock, b"still here")
        sock.close()


def test_a_removed_endpoint_keeps_its_sessions_for_the_grace(
    ns: NameServer, backends: list[Backend]
) -> None:
    """Sessions of an endpoint that left live for --removal-grace, then end as removed."""
    one, two, _ = backends
    publish(ns, (0, 0, one))
    with running(*flags(ns, "--removal-grace=4s", "--access-log")) as gateway:
        sock, _name = greeted(gateway.address)
        publish(ns, (0, 0, two))
        gateway.signal(signal.SIGHUP)
        gateway.wait_line("endpoints changed")
        talk(sock, b"ping")
        wait_until(ended(sock), 10)
        sock.close()
        assert gateway.wait_line("session")["end"] == "removed"


def test_reload_waits_for_a_start_that_finds_nothing(
    ns: NameServer, backends: list[Backend], tmp_path: Path
) -> None:
    """The command does what the signal does, and says how it ended."""
    config, admin = tmp_path / "gateway.toml", f"--admin-addr=unix:{tmp_path}/admin"
    config.write_text('endpoints = "typo.example.test:1"\n')
    ns.faults["typo.example.test"] = Fault.SERVFAIL
    with Gateway(f"--nameserver={ns.address}", f"--config-file={config}", admin) as gateway:
        gateway.wait_line("admin address is open")
        config.write_text('endpoints = "absent.example.test:1"\n')
        failed = run_command("reload", admin)
        assert failed.returncode == 1
        assert "reload failed: " in failed.stderr
        config.write_text(f'endpoints = "{backends[0].address}"\n')
        assert run_command("reload", admin).returncode == 0
        gateway.wait_ready()


def test_a_reload_takes_an_endpoint_away_by_its_own_grace(
    backends: list[Backend], tmp_path: Path
) -> None:
    """One edit of the file changes ``removal-grace`` and ``endpoints``: the new grace counts."""
    one, two, _ = backends
    config = tmp_path / "gateway.toml"
    config.write_text(f'endpoints = "{one.address}"\nremoval-grace = "1h"\n')
    with running(f"--config-file={config}") as gateway:
        sock, _name = greeted(gateway.address)
        config.write_text(f'endpoints = "{two.address}"\nremoval-grace = "1s"\n')
        gateway.signal(signal.SIGHUP)
        gateway.wait_line("reload complete")
        wait_until(ended(sock), 10)
        sock.close()


def test_dns_dead_at_start_comes_back(ns: NameServer, backends: list[Backend]) -> None:
    """Started with DNS dead, the gateway becomes ready by itself when DNS returns."""
    publish(ns, (0, 0, backends[0]))
    ns.stop()
    with Gateway(*flags(ns)) as gateway:
        gateway.wait_line("no endpoint found yet, trying again")
        with pytest.raises(ConnectionRefusedError):
            connect(gateway.address)
        ns.start()
        gateway.wait_ready()
        assert asked(gateway.address) == "b0"


def test_sighup_hurries_a_start_that_waits(ns: NameServer, backends: list[Backend]) -> None:
    """HUP while nothing is found yet resolves again at once."""
    publish(ns, (0, 0, backends[0]))
    ns.faults[""] = Fault.SERVFAIL
    with Gateway(*flags(ns)) as gateway:
        wait_until(lambda: ns.asked(PLAIN, "SRV") >= 4, 20)  # retries are seconds apart by now
        assert len(gateway.lines("no endpoint found yet, trying again")) == 1
        ns.faults.clear()
        gateway.signal(signal.SIGHUP)
        gateway.wait_ready()
        gateway.wait_line("reload complete")


def test_sighup_gives_a_start_that_waits_other_targets(
    ns: NameServer, backends: list[Backend], tmp_path: Path
) -> None:
    """The configuration is read again, as a restart would; what can never be used changes nothing.

    DNS may fail for the new targets as well: then it is they that are waited for.
    """
    config = tmp_path / "gateway.toml"
    config.write_text('endpoints = "typo.example.test:1"\n')
    ns.faults["typo.example.test"] = ns.faults["right.example.test"] = Fault.SERVFAIL
    ns.set("right.example.test", "A", "127.0.0.1")
    right = f"right.example.test:{backends[0].port}"
    with Gateway(f"--nameserver={ns.address}", f"--config-file={config}") as gateway:
        gateway.wait_line("no endpoint found yet, trying again")
        config.write_text('endpoints = "absent.example.test:1"\n')
        gateway.signal(signal.SIGHUP)
        assert "absent.example.test" in gateway.wait_line("reload failed")["error"]
        config.write_text(f'endpoints = "{right}"\nmember-sync = "1h"\n')
        gateway.signal(signal.SIGHUP)
        gateway.wait_line("reload complete")
        assert gateway.lines(READY) == []
        ns.faults.clear()
        assert gateway.wait_line(READY)["endpoints"] == [right]
        assert asked(gateway.address) == "b0"
        gateway.wait_line("member sync failed, endpoints stay as they were")


def test_a_reload_gives_a_start_that_waits_other_listen_addresses(
    ns: NameServer, backends: list[Backend], tmp_path: Path
) -> None:
    """Whatever is in the file is used; what can never be used changes nothing."""
    config, admin = tmp_path / "gateway.toml", f"unix:{tmp_path}/admin"
    ns.faults["typo.example.test"] = Fault.SERVFAIL
    config.write_text('listen-addr = "typo.example.test:1"\n')
    given = (f"--nameserver={ns.address}", f"--config-file={config}", f"--admin-addr={admin}")
    with Gateway(*given, listen="") as gateway:
        gateway.wait_line("listen address does not resolve yet, trying again")
        config.write_text('listen-addr = "absent.example.test:1"\n')
        gateway.signal(signal.SIGHUP)
        assert "absent.example.test" in gateway.wait_line("reload failed")["error"]
        right = f'endpoints = "{backends[0].address}"\nlisten-addr = "127.0.0.1:{gateway.port}"\n'
        config.write_text(right)
        wait_until(lambda: reload_command.run([admin]) == 0)
        assert gateway.wait_line(READY)["endpoints"] == [backends[0].address]
        assert asked(gateway.address) == "b0"
        assert fetch_status([admin])["configuration"]["listen-addr"]["source"] == "file"


@pytest.mark.parametrize("fault", [Fault.SERVFAIL, Fault.NXDOMAIN])
def test_dns_that_fails_later_takes_nothing_away(
    ns: NameServer, backends: list[Backend], fault: Fault
) -> None:
    """After a good start the endpoints outlive DNS, and a reload then is no failure."""
    publish(ns, (0, 0, backends[0]))
    with running(*flags(ns)) as gateway:
        ns.faults[""] = fault
        gateway.signal(signal.SIGHUP)
        gateway.wait_line("reload complete")
        assert asked(gateway.address) == "b0"
        assert gateway.lines("endpoints changed") == []


def test_sessions_ask_no_dns(ns: NameServer, backends: list[Backend]) -> None:
    """200 sessions cause no DNS query at all."""
    publish(ns, *((0, 0, b) for b in backends), ttl=300)
    ns.set("host.example.test", "A", "127.0.0.1", ttl=300)
    ns.set("host.example.test", "AAAA", "::1", ttl=300)
    ns.negative_ttl = 300
    with running(*flags(ns)) as gateway:
        before = len(ns.queries)
        for _ in range(200):
            asked(gateway.address)
        assert len(ns.queries) == before


@pytest.mark.parametrize(
    ("records", "shares"),
    [
        (((0, 1), (0, 1), None), (200, 200, 0)),
        (((0, 1), (0, 3), None), (100, 300, 0)),
        (((0, 0), (0, 5), None), (4, 396, 0)),
        (((0, 0), (10, 0), (20, 0)), (400, 0, 0)),
        (((20, 9), (10, 5), (10, 5)), (0, 200, 200)),
    ],
)
def test_shares_over_all_workers(
    ns: NameServer,
    backends: list[Backend],
    records: tuple[tuple[int, int] | None, ...],
    shares: tuple[int, ...],
) -> None:
    """RFC 2782 weights and priorities hold within 2 % over 400 sessions and four workers."""
    published = [
        (*record, backend) for record, backend in zip(records, backends, strict=True) if record
    ]
    publish(ns, *published, ttl=300)
    with running(*flags(ns, "--health-check=off"), workers=4) as gateway:
        counts = Counter(asked(gateway.address) for _ in range(400))
    for backend, share in zip(backends, shares, strict=True):
        assert abs(counts[backend.name] - share) <= 8, counts
        assert share or not counts[backend.name], counts


def test_a_definite_no_is_69(ns: NameServer) -> None:
    """NXDOMAIN at start is exit code 69 with one line; 127.0.0.1:2379 is no silent fallback."""
    done = run_command("start", *flags(ns, f"--listen-addr=127.0.0.1:{free_port()}"))
    assert done.returncode == 69, done.stderr
    assert f"SRV {PLAIN}: NXDOMAIN" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_static_loop_is_2() -> None:
    """An endpoint that is the gateway itself is exit code 2, wildcards and names counted."""
    for listen, endpoint in ((":23791", "127.0.0.1:23791"), ("127.0.0.1:23791", "localhost:23791")):
        done = run_command("start", f"--listen-addr={listen}", f"--endpoints={endpoint}")
        assert done.returncode == 2, done.stderr
        assert f"--endpoints {endpoint}" in done.stderr


def test_plaintext_endpoints_are_69_without_insecure_discovery(
    ns: NameServer, backends: list[Backend]
) -> None:
    """If all endpoints fail the TLS check the gateway does not start, and says which and why."""
    publish(ns, (0, 0, backends[0]))
    done = run_command(
        "start",
        "--discovery-srv=example.test",
        f"--nameserver={ns.address}",
        f"--listen-addr=127.0.0.1:{free_port()}",
    )
    assert done.returncode == 69, done.stderr
    assert f"host.example.test:{backends[0].port}" in done.stderr


def test_the_master_has_one_thread(ns: NameServer, backends: list[Backend]) -> None:
    """Resolving, following and reloading start no thread."""
    publish(ns, (0, 0, backends[0]))
    with running(*flags(ns)) as gateway:
        gateway.signal(signal.SIGHUP)
        gateway.wait_line("reload complete")
        for pid in (gateway.pid, *gateway.workers()):
            assert len(list(Path(f"/proc/{pid}/task").iterdir())) == 1
