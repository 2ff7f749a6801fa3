"""The timer of both planes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway import timer
from gateway.timer import Timer


def test_a_call_that_raises_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop hears of the error, and what the call looks after goes on."""
    monkeypatch.setattr(timer, "AFTER_FAILURE_S", 0.0)

    async def play() -> None:
        told: list[BaseException] = []
        over = asyncio.Event()

        def on_error(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            told.append(context["exception"])

        def look() -> None:
            if not told:
                raise MemoryError
            over.set()

        loop = asyncio.get_running_loop()
        loop.set_exception_handler(on_error)
        watch = Timer(loop, look)
        watch.start(0.0)
        await over.wait()
        assert [type(error) for error in told] == [MemoryError]
        assert not watch.running

    asyncio.run(play())


def test_a_start_does_not_put_a_call_off() -> None:
    """Nor is it called twice; a stop ends it."""

    async def play() -> None:
        loop = asyncio.get_running_loop()
        over = asyncio.Event()
        watch = Timer(loop, over.set)
        watch.start(0.0)
        watch.start(3600.0)
        await over.wait()
        assert not watch.running
        watch.start(3600.0)
        assert watch.running
        watch.stop()
        assert not watch.running

    asyncio.run(play())
