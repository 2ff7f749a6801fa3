"""The worker's epoll: batches, budgets, closing."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import uvloop

from gateway import poller as poller_module
from gateway.poller import BATCH, CHUNK, SLICE_S, TURN_S, Poller
from gateway.unwatched import NO_ROOM_TO_WATCH


class Watcher:
    """Keeps its masks; does ``act`` at each."""

    def __init__(self, act: Callable[[int], None] = lambda _: None) -> None:
        self.act = act
        self.masks: list[int] = []
        self.crashes: list[Exception] = []

    def on_event(self, mask: int) -> None:
        self.masks.append(mask)
        self.act(mask)

    def on_crash(self, error: Exception) -> None:
        self.crashes.append(error)


@pytest.fixture
def loop() -> asyncio.AbstractEventLoop:
    return uvloop.new_event_loop()


def run(loop: asyncio.AbstractEventLoop, until: Callable[[], bool]) -> None:
    async def wait() -> None:
        async with asyncio.timeout(60):
            while not until():  # noqa: ASYNC110 - turns the loop
                await asyncio.sleep(0)

    loop.run_until_complete(wait())


def test_a_crash_stays_with_its_watcher(loop: asyncio.AbstractEventLoop) -> None:
    """A watcher that raises is told, and the others of the batch are served."""
    poller = Poller(loop)

    def fail(_mask: int) -> None:
        raise ValueError("broken")

    bad, good = Watcher(fail), Watcher()
    ends = [os.pipe(), os.pipe()]
    for (r, w), watcher in zip(ends, (bad, good), strict=True):
        poller.add(r, watcher)
        os.write(w, b"x")
    run(loop, lambda: bool(bad.crashes and good.masks))
    assert str(bad.crashes[0]) == "broken"
    poller.shut()
    loop.close()
    for r, w in ends:
        os.close(r)
        os.close(w)


def test_closed_descriptors_keep_their_number_for_the_batch(
    loop: asyncio.AbstractEventLoop,
) -> None:
    """No descriptor opened during a batch gets the number of one closed in it."""
    poller = Poller(loop)
    fresh: list[int] = []
    r, w = os.pipe()

    def close_and_open(_mask: int) -> None:
        poller.close(r)
        fresh.append(os.dup(w))

    poller.add(r, Watcher(close_and_open))
    os.write(w, b"x")
    run(loop, lambda: bool(fresh))
    assert fresh[0] != r
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(r)
    poller.shut()
    loop.close()
    os.close(w)
    os.close(fresh[0])


def test_left_over_work_is_done_without_an_event(loop: asyncio.AbstractEventLoop) -> None:
    """``again`` calls back with mask 0, once, although the descriptor stays silent."""
    poller = Poller(loop)
    watcher = Watcher()
    poller.again(watcher)
    poller.again(watcher)
    run(loop, lambda: bool(watcher.masks))
    run(loop, lambda: True)
    assert watcher.masks == [0]
    poller.shut()
    loop.close()


def test_endless_work_leaves_the_loop_its_turn(loop: asyncio.AbstractEventLoop) -> None:
    """A watcher that always wants more does not keep timers from running."""
    poller = Poller(loop)
    watcher = Watcher()
    watcher.act = lambda _: poller.again(watcher)
    poller.again(watcher)
    fired: list[bool] = []
    loop.call_later(0.001, fired.append, True)
    run(loop, lambda: bool(fired))
    poller.shut()
    loop.close()


class Busy(Watcher):
    """Takes a while at each event."""

    def __init__(self, for_s: float) -> None:
        def work(_mask: int) -> None:
            end = time.monotonic() + for_s
            while time.monotonic() < end:
                pass

        super().__init__(work)


def test_what_does_not_fit_into_a_turn_comes_first_in_the_next(
    loop: asyncio.AbstractEventLoop,
) -> None:
    """Timers run in between, each event is handled once, and nobody is handled twice before all
    were handled."""
    poller = Poller(loop)
    order: list[int] = []
    ends = [os.pipe() for _ in range(8 * CHUNK)]
    for index, (r, w) in enumerate(ends):
        watcher = Busy(TURN_S / 4)
        watcher.act = partial(_note_and_work, order, index, watcher.act)
        poller.add(r, watcher)
        os.write(w, b"x")
    fired: list[int] = []
    loop.call_later(0.0, lambda: loop.call_later(TURN_S, lambda: fired.append(len(order))))
    run(loop, lambda: len(order) >= len(ends))
    run(loop, lambda: True)
    assert sorted(order) == list(range(len(ends)))
    assert fired[0] < len(ends), "the timer waited for all of them"
    poller.shut()
    loop.close()
    for r, w in ends:
        os.close(r)
        os.close(w)


def _note_and_work(order: list[int], index: int, work: Callable[[int], None], mask: int) -> None:
    order.append(index)
    work(mask)


def test_no_events_are_asked_for_while_some_are_postponed(
    loop: asyncio.AbstractEventLoop,
) -> None:
    """Each event is postponed once at most, however many more there are in the kernel."""
    poller = Poller(loop)
    most: list[int] = []

    def work(_mask: int) -> None:
        most.append(len(poller._postponed))
        end = time.monotonic() + TURN_S / CHUNK
        while time.monotonic() < end:
            pass

    ends = [os.pipe() for _ in range(2 * BATCH)]
    for r, w in ends:
        poller.add(r, Watcher(work))
        os.write(w, b"x")
    run(loop, lambda: len(most) == len(ends))
    assert 0 < max(most) < BATCH
    poller.shut()
    loop.close()
    for pair in ends:
        for fd in pair:
            os.close(fd)


def test_what_is_last_again_comes_in_the_next_batch(loop: asyncio.AbstractEventLoop) -> None:
    """A watcher called at the end of a batch may ask for the end of the next, without an event."""
    poller = Poller(loop)
    r, w = os.pipe()
    watcher = Watcher()

    def go_on(mask: int) -> None:
        if mask or len(watcher.masks) < 4:
            poller.last(watcher)

    watcher.act = go_on
    poller.add(r, watcher)
    os.write(w, b"x")
    run(loop, lambda: len(watcher.masks) == 4)
    run(loop, lambda: True)
    assert [bool(mask) for mask in watcher.masks] == [True, False, False, False]
    poller.shut()
    loop.close()
    os.close(r)
    os.close(w)


def test_a_postponed_event_goes_with_its_descriptor(loop: asyncio.AbstractEventLoop) -> None:
    """Closed before its turn came, it says nothing to the next owner of its number."""
    poller = Poller(loop)
    ends = [os.pipe() for _ in range(3 * CHUNK)]
    watchers = [Busy(TURN_S / CHUNK * 1.5) for _ in ends]
    for (r, w), watcher in zip(ends, watchers, strict=True):
        poller.add(r, watcher)
        os.write(w, b"x")
    late = next(  # called between two turns
        index for index in reversed(range(len(ends))) if index >= 2 * CHUNK
    )
    new_owner = Watcher()
    other_r, other_w = os.pipe()

    def swap() -> None:
        if watchers[late].masks:
            return
        number = ends[late][0]
        poller.close(number)
        os.dup2(other_r, number)
        poller.add(number, new_owner)

    loop.call_soon(loop.call_soon, swap)
    run(loop, lambda: all(watcher.masks for watcher in watchers[:late]))
    run(loop, lambda: True)
    assert new_owner.masks == []
    poller.shut()
    loop.close()
    for fd in [other_r, other_w, *(fd for pair in ends for fd in pair)]:
        os.close(fd)


def test_work_left_over_goes_round(loop: asyncio.AbstractEventLoop) -> None:
    """Among watchers that always want more, each gets as many turns as the others."""
    poller = Poller(loop)
    watchers = [Busy(SLICE_S / 3) for _ in range(10)]
    for watcher in watchers:
        work = watcher.act
        watcher.act = partial(_work_and_ask_again, poller, watcher, work)
        poller.again(watcher)
    run(loop, lambda: len(watchers[0].masks) >= 5)
    counts = [len(watcher.masks) for watcher in watchers]
    assert max(counts) - min(counts) <= 1
    poller.shut()
    loop.close()


def _work_and_ask_again(
    poller: Poller, watcher: Watcher, work: Callable[[int], None], mask: int
) -> None:
    work(mask)
    poller.again(watcher)


def test_an_event_waits_for_a_slice_of_the_work_left_over(
    loop: asyncio.AbstractEventLoop,
) -> None:
    """However many watchers have work left over, an event is handled before all of them were."""
    poller = Poller(loop)
    done: list[str] = []
    for _ in range(50):
        bulk = Busy(SLICE_S)
        bulk.act = partial(_note_and_work, done, "bulk", bulk.act)  # type: ignore[arg-type]
        poller.again(bulk)
    r, w = os.pipe()
    small = Watcher(lambda _: done.append("small"))
    poller.add(r, small)
    os.write(w, b"x")
    run(loop, lambda: len(done) == 51)
    assert done.index("small") <= 2
    poller.shut()
    loop.close()
    os.close(r)
    os.close(w)


@pytest.mark.parametrize("awake", [False, True])
def test_a_crash_that_cannot_be_handled_stops_nothing(
    loop: asyncio.AbstractEventLoop, awake: bool
) -> None:
    """A watcher that fails, and fails again when it is told, is reported; the others go on."""
    poller = Poller(loop)
    reported: list[object] = []
    loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))
    if awake:
        stay_awake(poller, loop)

    class Hopeless(Watcher):
        def on_crash(self, error: Exception) -> None:
            raise RuntimeError("again") from error

    def fail(_mask: int) -> None:
        raise ValueError("broken")

    bad, good = Hopeless(fail), Watcher()
    ends = [os.pipe() for _ in range(2)]
    for (r, w), watcher in zip(ends, (bad, good), strict=True):
        poller.add(r, watcher)
        os.write(w, b"x")
    run(loop, lambda: bool(good.masks))
    assert [str(each) for each in reported] == ["again"]
    os.write(ends[1][1], b"y")
    run(loop, lambda: len(good.masks) == 2)
    poller.shut()
    loop.close()
    for r, w in ends:
        os.close(r)
        os.close(w)


def stay_awake(poller: Poller, loop: asyncio.AbstractEventLoop) -> None:
    """Give it turns in close succession until it waits for events itself."""
    r, w = os.pipe()
    echo = Watcher(lambda _: (os.read(r, 1), os.write(w, b"x")))  # type: ignore[arg-type]
    poller.add(r, echo)
    os.write(w, b"x")
    run(loop, lambda: poller.awake)
    echo.act = lambda _: None


@pytest.mark.parametrize(("descriptors", "lulls"), [(8, 1), (80, 10)])
def test_going_to_sleep_is_rarer_the_more_descriptors_there_are(
    descriptors: int,
    lulls: int,
    loop: asyncio.AbstractEventLoop,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Because the kernel walks through all of them then."""
    monkeypatch.setattr(poller_module, "LULL_DESCRIPTORS", 8)
    poller = Poller(loop)
    ends = os.pipe()
    silent = [os.dup(ends[0]) for _ in range(descriptors)]
    for fd in silent:
        poller.add(fd, Watcher())
    for _ in range(2):
        stay_awake(poller, loop)
        asleep_after = 0

        def is_asleep() -> bool:
            nonlocal asleep_after
            asleep_after += 1
            return not poller.awake

        run(loop, is_asleep)
        assert asleep_after >= lulls
    poller.shut()
    loop.close()
    for fd in (*ends, *silent):
        os.close(fd)


def test_removed_descriptors_are_silent(loop: asyncio.AbstractEventLoop) -> None:
    """A descriptor with a duplicate elsewhere says nothing after its removal."""
    poller = Poller(loop)
    watcher, other = Watcher(), Watcher()
    r, w = os.pipe()
    r2, w2 = os.pipe()
    twin = os.dup(r)
    poller.add(r, watcher)
    poller.add(r2, other)
    poller.remove(r)
    os.close(r)
    os.write(w, b"x")
    os.write(w2, b"x")
    run(loop, lambda: bool(other.masks))
    assert watcher.masks == []
    poller.shut()
    loop.close()
    for fd in (w, twin, r2, w2):
        os.close(fd)


class Host:
    """A host that may have no room for one more watch: fs.epoll.max_user_watches is reached."""

    def __init__(self) -> None:
        self.code = 0
        host = self

        class Loop(uvloop.Loop):
            def add_reader(self, fd: Any, callback: Any, *arguments: Any) -> None:  # type: ignore[override]
                host.check()
                super().add_reader(fd, callback, *arguments)

        class Epoll:
            def __init__(self, epoll: select.epoll) -> None:
                self._epoll = epoll

            def register(self, fd: int, events: int) -> None:
                host.check()
                self._epoll.register(fd, events)

            def __getattr__(self, name: str) -> object:
                return getattr(self._epoll, name)

        self.loop: asyncio.AbstractEventLoop = Loop()
        self.poller = Poller(self.loop)
        epoll: Any = Epoll(self.poller._epoll)
        self.poller._epoll = self.poller.unwatched._epoll = epoll
        self.said: list[str] = []
        self.why = ""

        def on_short(why: str) -> None:
            self.said.append("short")
            self.why = why

        self.poller.unwatched.on_short = on_short
        self.poller.unwatched.on_room = lambda: self.said.append("room")

    def check(self) -> None:
        if self.code:
            raise OSError(self.code, os.strerror(self.code))

    def close(self) -> None:
        self.poller.shut()
        self.loop.close()


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    monkeypatch.setattr("gateway.unwatched.AGAIN_S", 0.001)
    monkeypatch.setattr(poller_module, "poll", lambda epoll, *rest: epoll.poll(*rest))
    monkeypatch.setattr(poller_module, "register", lambda epoll, *rest: epoll.register(*rest))
    made = Host()
    yield made
    made.close()


@pytest.mark.interpreted
@pytest.mark.parametrize("code", NO_ROOM_TO_WATCH)
def test_what_cannot_be_watched_yet_waits_for_room(host: Host, code: int) -> None:
    """Its events are there when there is room, those included that it asked for meanwhile.

    The log hears what there is no room for.
    """
    silent, closed, removed = Watcher(), Watcher(), Watcher()
    ours, theirs = socket.socketpair()
    gone, away = os.dup(ours.fileno()), os.dup(ours.fileno())
    host.code = code
    for fd, watcher in ((ours.fileno(), silent), (gone, closed), (away, removed)):
        host.poller.add(fd, watcher)
    host.poller.want_out(ours.fileno())
    host.poller.close(gone)
    host.poller.remove(away)
    theirs.send(b"x")
    tries: list[bool] = []
    host.loop.call_later(0.005, tries.append, True)  # some tries are in vain
    run(host.loop, lambda: bool(tries))
    assert host.poller.unwatched.short
    host.code = 0
    run(host.loop, lambda: bool(silent.masks))
    assert silent.masks == [select.EPOLLIN | select.EPOLLOUT]
    assert host.said == ["short", "room"]
    assert ("fs.epoll.max_user_watches" in host.why) == (code == errno.ENOSPC)
    assert ("no memory" in host.why) == (code == errno.ENOMEM)
    assert not host.poller.unwatched.short
    host.poller.remove(ours.fileno())
    assert closed.masks == removed.masks == []
    for fd in (ours, theirs):
        fd.close()
    os.close(away)


@pytest.mark.interpreted
def test_a_number_that_is_used_again_is_watched_once(host: Host) -> None:
    """One that waited was closed, and the next one with its number was there for the room."""
    ours, theirs = socket.socketpair()
    host.code = errno.ENOSPC
    gone = os.dup(ours.fileno())
    host.poller.add(gone, Watcher())
    host.poller.close(gone)
    host.code = 0
    assert os.dup(ours.fileno()) == gone
    watcher = Watcher()
    host.poller.add(gone, watcher)
    run(host.loop, lambda: host.said == ["short", "room"])
    theirs.send(b"x")
    run(host.loop, lambda: bool(watcher.masks))
    host.poller.remove(gone)
    os.close(gone)
    ours.close()
    theirs.close()


@pytest.mark.interpreted
def test_what_can_never_be_watched_is_an_error(host: Host) -> None:
    """At once, and also where it has waited for room before."""
    ours, theirs = socket.socketpair()
    watcher = Watcher()
    host.code = errno.EPERM
    with pytest.raises(PermissionError):
        host.poller.add(ours.fileno(), watcher)
    with pytest.raises(FileNotFoundError):
        host.poller.want_out(ours.fileno())
    host.code = errno.ENOSPC
    host.poller.add(ours.fileno(), watcher)
    host.code = errno.EPERM
    run(host.loop, lambda: bool(watcher.crashes))
    assert host.said == ["short", "room"]
    ours.close()
    theirs.close()


@pytest.mark.interpreted
def test_it_stays_awake_where_the_loop_cannot_watch_it(host: Host) -> None:
    """Events go on to be handled, and it sleeps as soon as there is room."""
    stay_awake(host.poller, host.loop)
    host.code = errno.ENOSPC
    for _ in range(2):
        host.poller._sleep()
    assert host.poller.awake
    host.code = 0
    run(host.loop, lambda: not host.poller.awake)
    watcher = Watcher()
    ours, theirs = socket.socketpair()
    host.poller.add(ours.fileno(), watcher)
    theirs.send(b"x")
    run(host.loop, lambda: bool(watcher.masks))
    host.poller.remove(ours.fileno())
    ours.close()
    theirs.close()
