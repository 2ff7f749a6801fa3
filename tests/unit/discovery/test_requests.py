"""Requests for a resolution."""

from __future__ import annotations

import asyncio

import pytest

from supervisor.discovery.requests import Requests


@pytest.mark.timeout(20)
def test_what_is_always_due_leaves_others_their_turn() -> None:
    """A mistake in what is due costs resolutions in vain, and not the whole master."""

    async def main() -> None:
        requests, loop = Requests(), asyncio.get_running_loop()
        others = asyncio.Event()
        loop.call_soon(others.set)
        await requests.wait(lambda: 0.0)
        assert others.is_set()

    asyncio.run(main())


@pytest.mark.timeout(20)
def test_a_request_is_served_at_once() -> None:
    """Also one that came before anybody waited."""

    async def main() -> None:
        requests = Requests()
        requests.refresh()
        await requests.wait(lambda: None)
        assert requests.take().everything

    asyncio.run(main())
