"""The rate of new clients in a worker: what is left of it when there is none any more."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from gateway.core.counters import PauseReason, WorkerCounters
from gateway.core.descriptor_budget import DescriptorBudget
from gateway.ingress.accept_rate import AcceptRate
from gateway.ingress.quota import Quota
from gateway.scoreboard import Scoreboard


class Timers(asyncio.SelectorEventLoop):
    """A loop that remembers its timers."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[asyncio.TimerHandle] = []

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: object, context: object = None
    ) -> asyncio.TimerHandle:
        self.made.append(super().call_later(delay, callback, *args))
        return self.made[-1]


def test_no_look_is_to_come_after_the_end() -> None:
    """It would say again that the rate is reached, and every client would wait for it."""
    loop, scoreboard, counters = Timers(), Scoreboard(), WorkerCounters()
    row = scoreboard.open_row(0, 1)
    scoreboard.enter(row, os.getpid())
    budget = DescriptorBudget(counters)
    quota = Quota(
        scoreboard, row=row, counters=counters, budget=budget, serve=lambda fd, _: os.close(fd)
    )
    rate = AcceptRate(loop, scoreboard, row=row, per_s=1, quota=quota, recheck=lambda: None)
    rate.count_client(accepting=True)
    assert quota.rate_reached
    assert (quota.room(), quota.shortage) == (0, PauseReason.LIMIT)
    rate.close()
    assert [timer.cancelled() for timer in loop.made] == [True]
    assert (quota.rate_reached, quota.shared) == (False, False)
    assert quota.room() > 0
    scoreboard.close()
    loop.close()
