"""How often a snapshot is published while much changes."""

from __future__ import annotations

import asyncio
import time

import pytest

from gateway.core.messages import Snapshot
from supervisor.snapshot_publisher import SnapshotPublisher

ASKED = 100


def test_many_changes_in_a_pause_are_one_publication() -> None:
    """Each costs the loop what the pause after it is to make up for."""
    made = 0
    sent: list[int] = []

    def make() -> Snapshot:
        nonlocal made
        made += 1
        until = time.process_time() + 0.02
        while time.process_time() < until:
            pass
        return Snapshot(made, ())

    async def play() -> None:
        again = asyncio.Event()

        def send(snapshot: Snapshot) -> None:
            sent.append(snapshot.version)
            if snapshot.version > 1:
                again.set()

        loop = asyncio.get_running_loop()
        publisher = SnapshotPublisher(loop, make=make, send=send, record=lambda: None, version=0)
        for _ in range(ASKED):
            publisher.ask()
        await asyncio.wait_for(again.wait(), 60)
        publisher.cancel()

    asyncio.run(play())
    assert sent == list(range(1, made + 1))
    assert made < ASKED / 2


def test_a_snapshot_that_could_not_be_sent_is_sent_again() -> None:
    """At the next occasion, though nothing changed since: workers have an older one."""
    sent: list[int] = []
    refusals = [MemoryError()]

    def send(snapshot: Snapshot) -> None:
        if refusals:
            raise refusals.pop()
        sent.append(snapshot.version)

    async def play() -> None:
        publisher = SnapshotPublisher(
            asyncio.get_running_loop(),
            make=lambda: Snapshot(1, ()),
            send=send,
            record=lambda: None,
            version=0,
        )
        with pytest.raises(MemoryError):
            publisher.publish()
        publisher.publish()
        publisher.publish()
        publisher.cancel()

    asyncio.run(play())
    assert sent == [1]
