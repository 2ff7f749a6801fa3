"""In which order one client should dial the addresses of an endpoint that has several.

Each address is a place of its own: sessions are spread over all of them evenly. Those of the first
address's family come first; the master puts the family first that this host can reach (RFC 6724).
An address that did not answer here is dialed last: otherwise one that swallows packets would cost
every client the delay of a hedge, for as long as the name stands for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from gateway.core.endpoint import Endpoint

FIRST_RETRY_S = 10.0
"""How long an address that failed is dialed last. Doubles with each further failure."""

LONGEST_RETRY_S = 60.0


class AddressMemory:
    """``failures``: by endpoint with several addresses, those that did not answer.

    ``first_turn(name)``: at which of its addresses this worker begins with an endpoint, so that
    many workers, and many hosts, do not all begin with the same one.
    """

    def __init__(self, first_turn: Callable[[str], int] = lambda _: 0) -> None:
        self.failures: dict[str, dict[str, _Failed]] = {}
        self._turns: dict[str, int] = {}
        self._first_turn = first_turn

    def order(
        self, endpoint: Endpoint, now: float, loads: Mapping[str, int] | None = None
    ) -> tuple[str, ...]:
        """The addresses as one client should dial them; call it once for each client.

        The good ones take turns at being first; with ``loads``, sessions by address, the one with
        the fewest is first. Those that the master holds for inactive come after them, and those
        that failed here come last. One that may be tried again comes first, for this client only:
        dial the next address beside it at once (:meth:`is_doubtful`), so that the client does not
        wait for it.
        """
        failed: Mapping[str, _Failed] = self.failures.get(endpoint.name) or {}
        good: list[str] = []
        doubtful: list[str] = []
        bad: list[str] = []
        for address in endpoint.addresses:
            if address in failed:
                bad.append(address)
            else:
                (doubtful if address in endpoint.inactive else good).append(address)
        good = self._take_turns(endpoint.name, good, loads)
        bad.sort(key=lambda address: failed[address].retry_at)
        if good and bad and failed[bad[0]].retry_at <= now:
            failed[bad[0]].retry_at = now + failed[bad[0]].wait_s
            return (bad[0], *good, *doubtful, *bad[1:])
        return (*good, *doubtful, *bad)

    def is_doubtful(self, name: str, address: str) -> bool:
        """Whether the last that is known of the address is that it failed."""
        return address in self.failures.get(name, ())

    def failed(self, endpoint: Endpoint, address: str, now: float) -> None:
        """The address refused, did not answer, or was slower than one dialed later."""
        if len(endpoint.addresses) > 1:
            of_name = self.failures.setdefault(endpoint.name, {})
            before = of_name.get(address)
            wait_s = FIRST_RETRY_S if before is None else min(before.wait_s * 2, LONGEST_RETRY_S)
            of_name[address] = _Failed(now + wait_s, wait_s)

    def answered(self, name: str, address: str) -> None:
        """The address took a connection."""
        failed = self.failures.get(name)
        if failed is not None:
            failed.pop(address, None)
            if not failed:
                del self.failures[name]

    def keep(self, endpoints: Iterable[Endpoint]) -> None:
        """There are only these endpoints, with only these addresses: forget all others."""
        present = {endpoint.name: endpoint.addresses for endpoint in endpoints}
        for name in self._turns.keys() - present.keys():
            del self._turns[name]
        for name, failed in tuple(self.failures.items()):
            for address in failed.keys() - set(present.get(name, ())):
                del failed[address]
            if not failed:
                del self.failures[name]

    def _take_turns(self, name: str, good: list[str], loads: Mapping[str, int] | None) -> list[str]:
        """The good addresses with the next one first, within the family that comes first."""
        family = [address for address in good if (":" in address) == (":" in good[0])]
        if len(family) < 2:
            return good
        turn = self._turns.get(name)
        if turn is None:
            turn = self._first_turn(name)
        self._turns[name] = turn + 1
        first = turn % len(family)
        rotated = family[first:] + family[:first]
        if loads is not None:
            rotated.sort(key=lambda address: loads.get(address, 0))
        return rotated + good[len(family) :]


class _Failed:
    """One address: when a client may try it again, and how long the wait was."""

    __slots__ = ("retry_at", "wait_s")

    def __init__(self, retry_at: float, wait_s: float) -> None:
        self.retry_at = retry_at
        self.wait_s = wait_s
