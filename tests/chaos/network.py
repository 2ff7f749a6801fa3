"""Four hosts: the gateways' and three members', each a network namespace on one switch."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence

from tests.support import wait_until
from tests.wires import ip

NEAR = "10.78.0.1"
MEMBERS = ("10.78.0.11", "10.78.0.12", "10.78.0.13")
_numbers = itertools.count()

Pairs = Sequence[tuple[int, int]]


class Network:
    """Owns the switch; ``namespaces`` are the hosts', the gateways' first."""

    def __init__(self, namespaces: list[str], switch: subprocess.Popen[str]) -> None:
        self.namespaces = namespaces
        self._switch = switch

    @staticmethod
    def between(index: int) -> Pairs:
        """The gateways' way to one member."""
        return [(0, index + 1)]

    @staticmethod
    def around(index: int) -> Pairs:
        """One member's ways to the other members."""
        return [(index + 1, other + 1) for other in range(3) if other != index]

    def set(self, links: Pairs, **treatment: float) -> None:
        """Treat packets on these links so from now on; nothing given: as a good wire does."""
        assert self._switch.stdin is not None
        order = {"links": [list(pair) for pair in links], **treatment}
        self._switch.stdin.write(json.dumps(order) + "\n")
        self._switch.stdin.flush()

    def close(self) -> None:
        assert self._switch.stdin is not None
        self._switch.stdin.close()
        self._switch.wait(10)
        assert self._switch.stdout is not None
        self._switch.stdout.close()


@contextlib.contextmanager
def connected(seed: int) -> Iterator[Network]:
    """The hosts and the switch; everything is gone afterwards."""
    number = next(_numbers)
    names = [f"chaos{os.getpid()}-{number}-{n}" for n in range(4)]
    addresses = (NEAR, *MEMBERS)
    network: Network | None = None
    made: list[str] = []
    try:
        for name in names:
            ip("netns", "add", name)
            made.append(name)
            ip("-n", name, "link", "set", "lo", "up")
        places = [f"{name}={address}" for name, address in zip(names, addresses, strict=True)]
        switch = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.wire", str(seed), *places],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        network = Network(names, switch)
        assert switch.stdout is not None
        assert switch.stdout.readline() == "up\n"
        for name, address in zip(names, addresses, strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "wire0")
            ip("-n", name, "link", "set", "wire0", "up", "txqueuelen", "10000")
        for name, address in zip(names, addresses, strict=True):
            wait_until(lambda name=name, address=address: _is_there(name, address), 10)  # type: ignore[misc]
        yield network
    finally:
        if network is not None:
            network.close()
        for name in made:
            with contextlib.suppress(subprocess.CalledProcessError):
                ip("netns", "del", name)


def _is_there(namespace: str, address: str) -> bool:
    """Whether a socket may be bound to the address there; the kernel needs a moment."""
    show = ["ip", "-n", namespace, "route", "get", address]
    return "local" in subprocess.run(show, capture_output=True, text=True).stdout
