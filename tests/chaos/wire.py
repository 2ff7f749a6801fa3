"""A switch between network namespaces that delays, loses, reorders and cuts on command.

``python -m tests.chaos.wire SEED NETNS=ADDRESS...`` has a TUN device ``wire0`` in each namespace
and carries IPv4 packets between them. The kernel's own (netem) is not everywhere.
On standard input come lines of JSON, ``{"links": [[0, 1]], "delay_s": 0.2, "jitter_s": 0.1,
"loss": 0.1, "cut": false}``: for these pairs, both ways; what is not named is as on a good wire.
Jitter of more than the distance of two packets reorders them.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import json
import os
import random
import select
import socket
import sys
import time
from dataclasses import dataclass
from typing import Any

from tests.stress.delay import open_tun

BATCH = 64


@dataclass(slots=True)
class Link:
    """How one way between two namespaces treats its packets."""

    delay_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0
    cut: bool = False


class Switch:
    """Owns the TUN devices."""

    def __init__(self, seed: int, places: list[tuple[str, str]]) -> None:
        self._random = random.Random(seed)
        self._tuns = [open_tun(netns) for netns, _ in places]
        self._index = {socket.inet_aton(address): n for n, (_, address) in enumerate(places)}
        count = range(len(places))
        self._links = {(a, b): Link() for a in count for b in count if a != b}
        self._flying: list[tuple[float, int, int, bytes]] = []
        self._count = itertools.count()

    def command(self, order: dict[str, Any]) -> None:
        pairs = order.pop("links")
        for a, b in pairs:
            self._links[a, b] = self._links[b, a] = Link(**order)

    def run(self) -> None:
        """Until standard input ends."""
        print("up", flush=True)
        while True:
            wait_s = max(self._flying[0][0] - time.monotonic(), 0.0) if self._flying else None
            readable, _, _ = select.select([0, *self._tuns], [], [], wait_s)
            if 0 in readable:
                line = sys.stdin.readline()
                if not line:
                    return
                self.command(json.loads(line))
            for source, tun in enumerate(self._tuns):
                if tun in readable:
                    self._take(source, tun)
            self._land()

    def _take(self, source: int, tun: int) -> None:
        now = time.monotonic()
        with contextlib.suppress(BlockingIOError):
            for _ in range(BATCH):
                packet = os.read(tun, 65536)
                target = self._index.get(packet[16:20])
                if packet[0] >> 4 != 4 or target is None or target == source:
                    continue
                link = self._links[source, target]
                if link.cut or self._random.random() < link.loss:
                    continue
                due = now + link.delay_s + link.jitter_s * self._random.random()
                heapq.heappush(self._flying, (due, next(self._count), self._tuns[target], packet))

    def _land(self) -> None:
        now = time.monotonic()
        while self._flying and self._flying[0][0] <= now:
            _, _, tun, packet = heapq.heappop(self._flying)
            with contextlib.suppress(OSError):  # that end is not up yet
                os.write(tun, packet)


if __name__ == "__main__":
    Switch(int(sys.argv[1]), [(a, b) for a, _, b in (x.partition("=") for x in sys.argv[2:])]).run()
