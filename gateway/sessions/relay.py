"""What the sessions of a worker share to relay bytes: the poller, the pipes, and the dirty ones."""

from __future__ import annotations

from typing import Protocol

from gateway.core.descriptor_budget import DescriptorBudget
from gateway.poller import Poller
from gateway.sessions.pipes import Pipes
from gateway.sessions.tcp_sample import Sampled


class Countable(Sampled, Protocol):
    """A session that moved bytes."""

    def count_bytes(self) -> None:
        """Count what moved since the last call."""


class Relay:
    """What all legs borrow.

    ``dirty`` holds the sessions that moved bytes since the last report, so that a report costs
    by these and not by all. The fast path pays nothing for it: a session that has just been
    reported is made not fast, and its next event comes by :meth:`Leg.copy`, which enters it here.
    """

    __slots__ = ("dirty", "pipes", "poller")

    def __init__(self, poller: Poller, budget: DescriptorBudget) -> None:
        self.poller = poller
        self.pipes = Pipes(budget)
        self.dirty: set[Countable] = set()

    def close(self) -> None:
        self.pipes.close()
