"""The worker's epoll: batches, budgets, closing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import pytest
import uvloop

from gateway.poller import Poller


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
        async with asyncio.timeout(10):
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
