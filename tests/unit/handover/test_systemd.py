"""What the master says to systemd, told to a socket of our own."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.descriptors import close_all, receive
from supervisor.handover import systemd as systemd_module
from supervisor.handover.service_notifier import ServiceNotifier
from supervisor.handover.systemd import (
    Notify,
    find_stored,
    least_watchdog_s,
    take_stored,
    watchdog_interval_s,
)
from tests.support import no_descriptors_left, note_timers, watch_nothing


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    """The service manager's side."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        yield sock


def heard(systemd: socket.socket) -> tuple[str, list[int]]:
    data, fds = receive(systemd, 4096, 8)
    return data.decode(), fds


async def hear(systemd: socket.socket, texts: list[str], count: int) -> None:
    """Until so many messages have come."""
    async with asyncio.timeout(60):
        while len(texts) < count:
            with contextlib.suppress(BlockingIOError):
                text, fds = heard(systemd)
                close_all(fds)
                texts.append(text)
                continue
            await asyncio.sleep(0.01)


async def tell_ready(notifier: ServiceNotifier, systemd: socket.socket) -> None:
    """The start is over, and the service manager has read everything before the barrier."""
    told = asyncio.create_task(notifier.tell_ready())
    await asyncio.sleep(0)
    os.close(heard(systemd)[1][0])
    await told


def test_without_a_service_manager_nothing_happens() -> None:
    """No NOTIFY_SOCKET, or one that is not there: every call is a no-op."""
    for address in (None, "", "vsock:2:1", "/does/not/exist"):
        notify = Notify(address)
        assert not notify.enabled
        assert bool(notify.failure) == (address == "/does/not/exist")
        notify.ready("x")
        notify.keep("a", 0)
        notify.remove("a")
        notify.status("x")
        assert asyncio.run(notify.barrier())
        notify.close()


def test_messages(systemd: socket.socket) -> None:
    """Each call is one datagram with what systemd expects in it."""
    notify = Notify(systemd.getsockname())
    notify.ready("all\nwell")
    assert heard(systemd)[0] == "READY=1\nSTATUS=all well"
    notify.reloading()
    first, second = heard(systemd)[0].split("\n")
    assert first == "RELOADING=1"
    assert second.startswith("MONOTONIC_USEC=")
    notify.stopping()
    notify.extend(2.5)
    notify.watchdog()
    assert [heard(systemd)[0] for _ in range(3)] == [
        "STOPPING=1",
        "EXTEND_TIMEOUT_USEC=2500000",
        "WATCHDOG=1",
    ]
    notify.close()


def test_status_is_said_at_most_once_a_second(systemd: socket.socket) -> None:
    """Of many changes the newest is said, and the same text is not repeated."""

    async def play() -> None:
        notify = Notify(systemd.getsockname())
        notify.status("one")
        notify.status("two")
        await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        assert heard(systemd)[0] == "STATUS=two"
        notify.status("two")
        notify.status("three")
        await asyncio.sleep(0.01)
        with pytest.raises(BlockingIOError):
            heard(systemd)
        notify.close()

    asyncio.run(play())


def test_a_reload_that_failed_is_in_the_status_until_one_worked(systemd: socket.socket) -> None:
    """Whoever looks a minute later is to see that the file on disk is not what runs."""
    summaries = ["1/1 endpoints active"]

    async def main() -> None:
        notify = Notify(systemd.getsockname())
        notifier = ServiceNotifier(notify, summary=lambda: summaries[-1], healthy=lambda: True)
        await tell_ready(notifier, systemd)
        notifier.tell_reloaded("no such file")
        summaries.append("0/1 endpoints active")
        notifier.show_status()
        await hear(systemd, texts, 3)  # the status is said a second later
        notifier.tell_reloaded(None)
        notifier.close()

    texts: list[str] = []
    asyncio.run(main())
    texts.append(heard(systemd)[0])
    assert texts == [
        "READY=1\nSTATUS=1/1 endpoints active",
        "READY=1\nSTATUS=reload failed: no such file; 1/1 endpoints active",
        "STATUS=reload failed: no such file; 0/1 endpoints active",
        "READY=1\nSTATUS=0/1 endpoints active",
    ]


def test_a_status_is_not_repeated_within_a_second_of_ready(systemd: socket.socket) -> None:
    """READY=1 comes with a status, which counts; a newer one replaces one that waits."""

    async def main() -> None:
        notify = Notify(systemd.getsockname())
        notify.ready("one")
        notify.status("two")
        for _ in range(2):  # a timer that is due at once has its turn behind us
            await asyncio.sleep(0)
        assert heard(systemd)[0] == "READY=1\nSTATUS=one"
        with pytest.raises(BlockingIOError):
            heard(systemd)
        notify.ready("three")
        notify.status("four")
        texts: list[str] = []
        await hear(systemd, texts, 2)
        assert texts == ["READY=1\nSTATUS=three", "STATUS=four"]
        notify.close()

    asyncio.run(main())


def test_a_reload_before_ready_is_told_with_it(systemd: socket.socket) -> None:
    """With Type=notify-reload the service manager waits for RELOADING=1 from its HUP on."""

    async def main() -> None:
        notifier = ServiceNotifier(
            Notify(systemd.getsockname()), summary=lambda: "well", healthy=lambda: True
        )
        notifier.tell_reloading()
        notifier.tell_reloaded(None)
        with pytest.raises(BlockingIOError):
            heard(systemd)
        await tell_ready(notifier, systemd)
        assert heard(systemd)[0].startswith("RELOADING=1\nMONOTONIC_USEC=")
        assert heard(systemd)[0] == "READY=1\nSTATUS=well"
        notifier.close()

    asyncio.run(main())


@pytest.mark.parametrize("early", [False, True])
def test_a_reload_that_an_upgrade_interrupts_is_told_once(
    systemd: socket.socket, early: bool
) -> None:
    """The next image does it again, and READY=1 is the end of it and not that of the upgrade."""

    async def main() -> None:
        notify = Notify(systemd.getsockname())
        notifier = ServiceNotifier(
            notify, summary=lambda: "well", healthy=lambda: True, reloading=True
        )
        if early:
            notifier.tell_reloading()
            notifier.tell_reloaded(None)
        await tell_ready(notifier, systemd)
        if not early:
            notifier.tell_reloading()
            with pytest.raises(BlockingIOError):
                heard(systemd)
            notifier.tell_reloaded(None)
        assert heard(systemd)[0] == "READY=1\nSTATUS=well"
        notifier.tell_reloading()
        assert heard(systemd)[0].startswith("RELOADING=1\n")
        notifier.close()

    asyncio.run(main())


def test_a_service_that_stops_is_not_ready_again(systemd: socket.socket) -> None:
    """A reload, or the last step of the start, may end behind STOPPING=1: only the status is said.

    systemd would take READY=1 for the end of the stop, and RELOADING=1 for a reload that begins.
    """

    async def main() -> None:
        notify = Notify(systemd.getsockname())
        notifier = ServiceNotifier(notify, summary=lambda: "draining", healthy=lambda: True)
        notifier.tell_reloading()
        starting = asyncio.create_task(notifier.tell_ready())
        await asyncio.sleep(0)
        notify.stopping()
        barrier = heard(systemd)[1][0]
        assert heard(systemd)[0] == "STOPPING=1"
        os.close(barrier)
        await starting
        notifier.tell_reloading()
        notifier.tell_reloaded(None)
        texts: list[str] = []
        await hear(systemd, texts, 1)
        assert texts == ["STATUS=draining"]
        with pytest.raises(BlockingIOError):
            heard(systemd)
        notifier.close()

    asyncio.run(main())


@pytest.mark.slow
def test_the_watchdog_is_fed_as_soon_as_a_worker_lives_again(systemd: socket.socket) -> None:
    """The next turn, here after 70 s, may be too late: the manager's interval has begun."""
    healthy = [True, False]

    async def main() -> None:
        notify = Notify(systemd.getsockname())
        notifier = ServiceNotifier(notify, summary=lambda: "", healthy=healthy.pop)
        notifier.feed_watchdog(70.0)
        texts: list[str] = []
        await hear(systemd, texts, 1)
        assert texts == ["WATCHDOG=1"]
        notifier.close()

    asyncio.run(main())


def test_a_watchdog_outlasts_a_worker_that_hangs() -> None:
    """Also the last one, from a moment after a feed to the feed behind its replacement."""
    assert least_watchdog_s(30.0) == 80.0


def test_kept_descriptors_come_back_by_name(systemd: socket.socket) -> None:
    """FDSTORE carries a duplicate; FDSTOREREMOVE forgets it."""
    notify = Notify(systemd.getsockname())
    read_end, write_end = os.pipe()
    notify.keep("pipe.0.1", read_end)
    assert heard(systemd)[0] == "FDSTOREREMOVE=1\nFDNAME=pipe.0.1"
    text, fds = heard(systemd)
    assert text == "FDSTORE=1\nFDNAME=pipe.0.1"
    assert os.fstat(fds[0]).st_ino == os.fstat(read_end).st_ino
    notify.close()
    for fd in (read_end, write_end, *fds):
        os.close(fd)


def test_what_is_forgotten_before_it_could_be_kept_is_not_kept(systemd: socket.socket) -> None:
    """Its number may be another descriptor's by then."""
    texts: list[str] = []

    async def play() -> None:
        notify = Notify(systemd.getsockname())
        with no_descriptors_left():
            for name in ("listener.0.0", "listener.1.0"):
                notify.keep(name, systemd.fileno())
            notify.remove("listener.0.0")
        systemd.setblocking(False)
        await hear(systemd, texts, 3)
        notify.close()

    asyncio.run(play())
    forgotten, *kept = texts
    assert forgotten == "FDSTOREREMOVE=1\nFDNAME=listener.0.0"
    assert kept == [f"FDSTORE{word}=1\nFDNAME=listener.1.0" for word in ("REMOVE", "")]


def test_one_timer_tries_again_what_could_not_be_kept(
    systemd: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many descriptors wait for a duplicate; none is tried once it is closed."""

    async def play() -> None:
        loop = asyncio.get_running_loop()
        begun = note_timers(loop, monkeypatch)
        notify = Notify(systemd.getsockname())
        with no_descriptors_left():
            for number in range(10):
                notify.keep(f"listener.{number}.0", systemd.fileno())
        assert [each.cancelled() for each in begun].count(False) == 1
        notify.close()
        assert all(each.cancelled() for each in begun)

    asyncio.run(play())


def test_the_barrier_waits_for_systemd(systemd: socket.socket) -> None:
    """It is reached when systemd closed its end, not when the datagram was sent."""

    async def play() -> None:
        notify = Notify(systemd.getsockname())
        waiting = asyncio.create_task(notify.barrier(5.0), name="barrier")
        await asyncio.sleep(0.01)
        text, fds = heard(systemd)
        assert text == "BARRIER=1"
        assert not waiting.done()
        os.close(fds[0])
        assert await waiting
        assert not await notify.barrier(0.01)
        os.close(heard(systemd)[1][0])
        notify.close()

    asyncio.run(play())


def test_many_messages_wait_in_order(systemd: socket.socket) -> None:
    """A service manager that is slow to read gets everything, in order."""

    async def play() -> None:
        notify = Notify(systemd.getsockname())
        for index in range(2000):
            notify.remove(f"x.{index}")
        for index in range(2000):
            while True:
                try:
                    text, _ = heard(systemd)
                    break
                except BlockingIOError:
                    await asyncio.sleep(0)
            assert text.endswith(f"=x.{index}")
        notify.close()

    asyncio.run(play())


def test_nothing_is_lost_where_there_is_no_room_to_watch(
    systemd: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fs.epoll.max_user_watches is reached: messages wait, and a barrier leaves nothing open."""

    async def play() -> None:
        loop = asyncio.get_running_loop()
        notify = Notify(systemd.getsockname())
        before = os.listdir("/proc/self/fd")
        with monkeypatch.context() as full:
            full.setattr(loop, "add_reader", watch_nothing)
            full.setattr(loop, "add_writer", watch_nothing)
            with pytest.raises(OSError, match="No space left"):
                await notify.barrier(5.0)
            assert os.listdir("/proc/self/fd") == before
            for index in range(2000):
                notify.remove(f"x.{index}")
        texts: list[str] = []
        await hear(systemd, texts, 2000)
        assert texts[-1].endswith("=x.1999")
        notify.close()

    monkeypatch.setattr("supervisor.handover.systemd.KEEP_RETRY_S", 0.001)
    asyncio.run(play())


def test_stored_descriptors_for_somebody_else_are_not_ours() -> None:
    """LISTEN_PID decides, and the variables are not passed on."""
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b"}
    assert take_stored(environ) == []
    assert environ == {}
    assert take_stored({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "none"}) == []


def test_descriptors_that_were_counted_and_not_given_are_not_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What somebody closed on the way may be a number of our own by now: it stays as it is."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        first = fcntl.fcntl(sock, fcntl.F_DUPFD, 600)  # as an exec leaves it
        own = fcntl.fcntl(sock, fcntl.F_DUPFD_CLOEXEC, first + 1)  # as Python makes descriptors
    try:
        assert own == first + 1, "the next number is taken"
        monkeypatch.setattr(systemd_module, "FIRST_FD", first)
        environ = {
            "LISTEN_PID": str(os.getpid()),
            "LISTEN_FDS": "3",  # nobody has the third
            "LISTEN_FDNAMES": "given:own:closed",
        }
        assert find_stored(environ) == [("given", first)]
        assert take_stored(environ) == [("given", first)]
        assert environ == {}
        assert not os.get_inheritable(first)
    finally:
        os.close(first)
        os.close(own)


def test_watchdog_interval() -> None:
    """Half of what the unit asks for, and only if it asks us."""
    assert watchdog_interval_s({}) is None
    assert watchdog_interval_s({"WATCHDOG_USEC": "0"}) is None
    assert watchdog_interval_s({"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": "1"}) is None
    assert watchdog_interval_s({"WATCHDOG_USEC": "4000000"}) == 2.0
