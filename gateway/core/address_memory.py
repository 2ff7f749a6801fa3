"""Which addresses of an endpoint did not answer here, and in which order to dial the rest.

A name often stands for several addresses. Without this memory, one of them that swallows packets
would cost every client the delay of a hedge, for as long as the name stands for it.
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway.core.endpoint import Endpoint

FIRST_RETRY_S = 10.0
"""How long an address that failed is dialed last. Doubles with each further failure."""

LONGEST_RETRY_S = 60.0


class AddressMemory:
    """Empty, and then false, as long as every address answers; single addresses are not in it."""

    def __init__(self) -> None:
        self._failed: dict[str, dict[str, _Failed]] = {}
        self._answered: dict[str, str] = {}

    def __bool__(self) -> bool:
        return bool(self._failed)

    def order(self, endpoint: Endpoint, now: float) -> tuple[str, ...]:
        """The addresses as one client should dial them.

        Those that failed come last, and the one that answered last comes before them. One that may
        be tried again comes first, for this client only: dial the next address beside it at once
        (:meth:`is_doubtful`), so that the client does not wait for it.
        """
        failed = self._failed.get(endpoint.name)
        if not failed:
            return endpoint.addresses
        answered = self._answered.get(endpoint.name)
        good = [address for address in endpoint.addresses if address not in failed]
        bad = [address for address in endpoint.addresses if address in failed]
        good.sort(key=lambda address: address != answered)
        bad.sort(key=lambda address: failed[address].retry_at)
        if good and failed[bad[0]].retry_at <= now:
            failed[bad[0]].retry_at = now + failed[bad[0]].wait_s
            return (bad[0], *good, *bad[1:])
        return (*good, *bad)

    def is_doubtful(self, name: str, address: str) -> bool:
        """Whether the last that is known of the address is that it failed."""
        return address in self._failed.get(name, ())

    def failed(self, endpoint: Endpoint, address: str, now: float) -> None:
        """The address refused, did not answer, or was slower than one dialed later."""
        if len(endpoint.addresses) > 1:
            of_name = self._failed.setdefault(endpoint.name, {})
            before = of_name.get(address)
            wait_s = FIRST_RETRY_S if before is None else min(before.wait_s * 2, LONGEST_RETRY_S)
            of_name[address] = _Failed(now + wait_s, wait_s)

    def answered(self, name: str, address: str) -> None:
        """The address took a connection."""
        failed = self._failed.get(name)
        if failed is not None:
            failed.pop(address, None)
            if failed:
                self._answered[name] = address
            else:
                self._forget(name)

    def keep(self, endpoints: Iterable[Endpoint]) -> None:
        """There are only these endpoints, with only these addresses: forget all others."""
        present = {endpoint.name: endpoint.addresses for endpoint in endpoints}
        for name, failed in tuple(self._failed.items()):
            for address in failed.keys() - set(present.get(name, ())):
                del failed[address]
            if not failed:
                self._forget(name)

    def _forget(self, name: str) -> None:
        del self._failed[name]
        self._answered.pop(name, None)


class _Failed:
    """One address: when a client may try it again, and how long the wait was."""

    __slots__ = ("retry_at", "wait_s")

    def __init__(self, retry_at: float, wait_s: float) -> None:
        self.retry_at = retry_at
        self.wait_s = wait_s
