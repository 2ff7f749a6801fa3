"""A worker's descriptors: how many are free for clients, pipes and dials."""

from __future__ import annotations

import sys

from gateway.core.counters import WorkerCounters

PER_SESSION = 2
"""Towards the client and towards the endpoint; the second one is reserved while it is dialed."""

PER_PIPE = 2

RESERVE = 12
"""Never given away: for the log, a snapshot of /proc, messages that carry descriptors."""

PIPES_SHARE = 4
"""Pipes have a quarter at most."""

CLIENTS_SHARE = 8
"""The last eighth is for clients only: a flow without a pipe is copied, which works as well."""


class DescriptorBudget:
    """The one count of what a worker's limit of open files is spent on.

    Sessions are counted by ``counters`` anyway; everything else is taken here and given back.
    Without :meth:`limit` nothing is limited.
    """

    __slots__ = ("_counters", "_others", "_pipes", "_total")

    def __init__(self, counters: WorkerCounters) -> None:
        self._counters = counters
        self._total = sys.maxsize
        self._pipes = 0
        self._others = 0

    def limit(self, most: int, used: int) -> None:
        """``most`` may be open, and ``used`` are, for other things than sessions and pipes."""
        self._total = max(most - used - RESERVE, PER_SESSION)
        self._others = 0

    @property
    def free(self) -> int:
        """Descriptors that nothing is spent on; may be negative where the reserve was touched."""
        sessions = self._counters.sessions * PER_SESSION
        return self._total - sessions - self._pipes * PER_PIPE - self._others

    def take_pipe(self) -> bool:
        """Whether a pipe may be made; it counts from now on."""
        pipes = (self._pipes + 1) * PER_PIPE
        if pipes > self._total // PIPES_SHARE or self.free < self._total // CLIENTS_SHARE:
            return False
        self._pipes += 1
        return True

    def give_pipe_back(self) -> None:
        self._pipes -= 1

    def take_beside_clients(self) -> bool:
        """Whether one is free for what can be done without; it counts then.

        The last eighth is left to clients.
        """
        if self.free < max(self._total // CLIENTS_SHARE, 1):
            return False
        self._others += 1
        return True

    def spend(self, count: int = 1) -> None:
        """These are open whether or not they fit: a client that waits, another slot's sockets."""
        self._others += count

    def give_back(self, count: int = 1) -> None:
        self._others -= count
