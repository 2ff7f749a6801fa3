"""What all dials of a worker share: what they borrow, and the timer that looks after them.

Most connects to this host or the next one are over at once and need no more than this. What takes
longer, or fails, becomes a :class:`~gateway.sessions.dial.Dial`.
"""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Callable

from gateway.core.address_memory import AddressMemory
from gateway.core.counters import DialResult, End, EndpointCounters
from gateway.core.descriptor_budget import DescriptorBudget
from gateway.core.endpoint import RETIRED, Endpoint
from gateway.core.messages import Settings, Snapshot
from gateway.poller import Poller
from gateway.sessions.connect import connect_from
from gateway.sessions.dial import Caller, Dial, OnDialFailed, Table
from gateway.tcp import ephemeral_ports
from gateway.timer import Timer
from gateway.unix import connect_unix

TELL_EVERY_S = 1.0
"""How often the master hears that this host cannot dial an endpoint."""

TICK_S = 0.02
"""How often unfinished dials are looked at; without any, no timer runs."""

LATE_S = 0.1
"""A tick that is late by more was kept back: the worker was stopped, or got no CPU."""


class Dialer:
    """What all dials of a worker share, and the timer that watches the unfinished ones."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        poller: Poller,
        table: Table,
        *,
        settings: Settings,
        count: Callable[[str], EndpointCounters],
        budget: DescriptorBudget,
        on_failed: OnDialFailed,
    ) -> None:
        self.poller = poller
        self.table = table
        self.settings = settings
        self.connect = connect_from(settings.source_addr)
        self.count = count
        self.budget = budget
        self.on_failed = on_failed
        self.addresses = AddressMemory(table.first_turn)
        self.ephemeral = ephemeral_ports()
        self.unfinished: dict[Dial, None] = {}
        self._usable: dict[str, Endpoint] = {}
        self._told_at: dict[str, float] = {}
        self._timer = Timer(loop, self._tick)
        self._ticked_at = 0.0

    def call(self, caller: Caller, first_bytes: bytes | None, now: float) -> Dial | None:
        """Dial for ``caller``; None if it is over already, one way or the other.

        ``first_bytes`` is what the client has said already. On a connection that stands at once, as
        on this host or the next one, they go out at once, with no event and no Dial.
        """
        endpoint = self.table.pick(())
        if endpoint is None:
            caller.gave_up(End.NO_ENDPOINT, 0)
            return None
        addresses = endpoint.addresses
        if len(addresses) > 1:
            addresses = self.order(endpoint, now)
        fd, sent, failure = -1, None, 0
        port = endpoint.port
        try:
            if port:
                fd, sent = self.connect(addresses[0], port, first_bytes, port in self.ephemeral)
            else:
                fd, sent = connect_unix(addresses[0], first_bytes)
        except OSError as error:
            failure = error.errno or errno.EIO
        if sent is not None:
            if self.addresses.failures:
                self.addresses.answered(endpoint.name, addresses[0])
            caller.connected(fd, endpoint, addresses[0], 0, sent, now, 1)
            return None
        dial = Dial(self, caller, now)
        try:
            dial.start(endpoint, addresses, fd, failure)
        except Exception:
            dial.cancel()  # the caller never heard of it
            raise
        return dial if dial in self.unfinished else None

    def apply(self, snapshot: Snapshot) -> None:
        """Drop the attempts to what is not to be dialed any more, and offer what joined.

        Which ports the kernel gives to connections may have changed: it is read again, for there is
        a snapshot whenever an endpoint turned inactive, and only where nobody listens can a dial
        meet itself.
        """
        self.ephemeral = ephemeral_ports()
        self.settings = snapshot.settings
        self.connect = connect_from(snapshot.settings.source_addr)
        usable = {
            endpoint.name: endpoint
            for endpoint in snapshot.endpoints
            if endpoint.state not in RETIRED
        }
        self.addresses.keep(usable.values())
        for name in self._told_at.keys() - usable.keys():
            del self._told_at[name]
        now = time.monotonic()
        before, self._usable = self._usable, usable
        for dial in tuple(self.unfinished):
            self._guard(dial, lambda dial: dial.follow(usable, before, now))

    def begin(self, endpoint: Endpoint, address: str) -> int:
        """A descriptor that is connected to the address, or connecting; the caller's to close.

        An OSError says why there is none.
        """
        port = endpoint.port
        fd, _ = self.connect(address, port) if port else connect_unix(address)
        return fd

    def order(self, endpoint: Endpoint, now: float) -> tuple[str, ...]:
        """The endpoint's addresses as the next client should dial them."""
        if len(endpoint.addresses) == 1:
            return endpoint.addresses
        return self.addresses.order(endpoint, now, self.table.address_loads(endpoint))

    def tell_local_failure(self, name: str, address: str, error: str, now: float) -> None:
        """This host cannot dial the endpoint; once a second is enough to know it."""
        if now - self._told_at.get(name, 0.0) >= TELL_EVERY_S:
            self._told_at[name] = now
            self.on_failed(name, address, DialResult.LOCAL, error)

    def watch(self, dial: Dial) -> None:
        """Look at ``dial`` every tick until it is no longer in ``unfinished``."""
        if not self.unfinished:
            self._ticked_at = time.monotonic()
        self.unfinished[dial] = None
        self._timer.start(TICK_S)

    def close(self) -> None:
        self._timer.stop()

    def _tick(self) -> None:
        now = time.monotonic()
        late_s = now - self._ticked_at - TICK_S
        self._ticked_at = now
        for dial in tuple(self.unfinished):
            if late_s > LATE_S:
                dial.forgive(late_s)
            self._guard(dial, lambda dial: dial.check(now))
        if self.unfinished:
            self._timer.start(TICK_S)

    def _guard(self, dial: Dial, call: Callable[[Dial], None]) -> None:
        if dial in self.unfinished:  # else one before it ended this one, too
            try:
                call(dial)
            except Exception as error:  # noqa: BLE001 - a session's boundary
                dial.caller.crashed(error)
