"""One dial: from a session that needs an endpoint to its connection, with failures hidden.

A dial makes attempts: endpoint after endpoint as the table picks them, address after address of
each. A failed attempt is followed by the next one at once. One that has not connected after
``dial_hedge_s`` gets company; the first to connect wins and the others are closed. What is our
own host's fault is never blamed on an endpoint, and is retried until ``dial_timeout_s``.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from gateway.core.address_memory import AddressMemory
from gateway.core.counters import DialResult, End, EndpointCounters
from gateway.core.descriptor_budget import DescriptorBudget
from gateway.core.endpoint import Endpoint
from gateway.core.messages import Settings
from gateway.core.outcome import EXHAUSTED, answer_of, result_of
from gateway.poller import DIALING, ERR, HUP, OUT, Poller
from gateway.tcp import arm_reset, error_of, is_connected, met_itself
from gateway.unix import QUEUE_FULL

LOOK_AGAIN_S = 0.1
"""How long a dial waits that found nothing to try for a reason of our own host's."""

MOST_ATTEMPTS = 4
"""Attempts of one dial under way at once."""

OnDialFailed = Callable[[str, str, DialResult, str], None]
"""endpoint, address, result, error text.

ABANDONED (slow to answer) is a hint and LOCAL news of our own host; neither is evidence.
"""


class Table(Protocol):
    """What sessions need of ``gateway.core.table``."""

    def pick(self, tried: Collection[str] = ()) -> Endpoint | None: ...
    def suspect(self, name: str) -> None: ...
    def is_trusted(self, name: str, address: str = "") -> bool: ...
    def trust(self, name: str) -> None: ...
    def session_started(self, name: str, address: str = "") -> None: ...
    def address_known(self, name: str, address: str) -> None: ...
    def session_ended(self, name: str, address: str = "") -> None: ...
    def first_turn(self, name: str) -> int: ...
    def address_loads(self, endpoint: Endpoint) -> Mapping[str, int] | None: ...


class Caller(Protocol):
    """Who wants the connection: a session."""

    def connected(
        self,
        fd: int,
        endpoint: Endpoint,
        address: str,
        mask: int,
        sent: int,
        dialed_at: float,
        attempts: int,
    ) -> None:
        """The dial won; ``fd`` is now the caller's.

        ``mask``: its first event, registered as DIALING; 0: not registered yet, but ``sent`` of
        the first bytes are on their way. ``attempts``: how many connects it took, this one counted.
        """

    def gave_up(self, end: End, attempts: int) -> None:
        """No endpoint, or none could be reached in so many attempts."""

    def crashed(self, error: Exception) -> None: ...


class DialContext(Protocol):
    """What a dial borrows of the worker's dialer."""

    poller: Poller
    table: Table
    settings: Settings
    addresses: AddressMemory
    ephemeral: range
    unfinished: dict[Dial, None]
    count: Callable[[str], EndpointCounters]
    budget: DescriptorBudget
    on_failed: OnDialFailed

    def watch(self, dial: Dial) -> None: ...
    def begin(self, endpoint: Endpoint, address: str) -> int: ...
    def order(self, endpoint: Endpoint, now: float) -> tuple[str, ...]: ...
    def tell_local_failure(self, name: str, address: str, error: str, now: float) -> None: ...


class Dial:
    """One session's way to an endpoint; over once the caller was told."""

    __slots__ = (
        "attempts", "begun", "caller", "dialer", "local", "made", "started_at", "starved",
        "untried", "waits_until",
    )  # fmt: skip

    def __init__(self, dialer: DialContext, caller: Caller, now: float) -> None:
        self.dialer = dialer
        self.caller = caller
        self.started_at = now
        self.attempts: list[Attempt] = []
        self.begun = -1
        """A descriptor that is connecting and that no attempt owns yet."""
        self.made = 0
        """Attempts that were ever made, those included that failed at once."""
        self.untried: dict[str, list[str]] = {}
        """By endpoint that was tried: its addresses that were not dialed yet, in order."""
        self.local = False
        """Our own host stood in the way of something tried: worth looking again later."""
        self.starved = False
        """... with everything: no descriptors, no memory."""
        self.waits_until = 0.0

    def start(self, endpoint: Endpoint, addresses: tuple[str, ...], fd: int, failure: int) -> None:
        """Go on from the first address: under way as ``fd``, or a ``failure`` with that errno.

        0 is no failure; ``fd`` is the dial's from now on.
        """
        self.begun = fd
        now = self.started_at
        self.dialer.watch(self)
        self.untried[endpoint.name] = list(addresses[1:])
        if not failure:
            self._add(endpoint, addresses[0], now)
        else:
            self._could_not(endpoint, addresses[0], failure, now)
            if self.starved or not self._attempt(endpoint, now):
                self._next(now)

    def cancel(self) -> None:
        """The caller left first: no evidence either way."""
        self.dialer.unfinished.pop(self, None)
        for attempt in self.attempts:
            self._drop(attempt, DialResult.ABANDONED)
        self.attempts.clear()
        if self.begun >= 0:
            os.close(self.begun)
            self.begun = -1

    def forgive(self, late_s: float) -> None:
        """The loop stood still for so long: what was answered meanwhile is not heard yet."""
        self.started_at += late_s
        for attempt in self.attempts:
            attempt.started_at += late_s

    def check(self, now: float) -> None:
        """Called every tick: time out, hedge, or look again."""
        settings = self.dialer.settings
        for attempt in tuple(self.attempts):
            overdue = now - attempt.started_at >= settings.dial_timeout_s
            if overdue and attempt in self.attempts and not attempt.look():
                self.failed(attempt, errno.ETIMEDOUT)
        if self not in self.dialer.unfinished:
            return
        if not self.attempts:
            if now - self.started_at >= settings.dial_timeout_s:
                self._give_up(End.DIAL_FAILED)
            elif now >= self.waits_until:
                self.local = self.starved = False
                self.untried.clear()
                self._next(now)
        elif 0 < settings.dial_hedge_s <= now - self.attempts[-1].started_at:
            self._hedge(now)

    def follow(
        self, usable: Mapping[str, Endpoint], before: Mapping[str, Endpoint], now: float
    ) -> None:
        """Give up attempts to what is not ``usable`` any more, and offer what joined since.

        ``before``: what was usable until now.
        """
        addresses = {name: _addresses_of(name, usable) for name in self.untried}
        for name, untried in self.untried.items():
            untried[:] = [address for address in untried if address in addresses[name]]
        dropped = set()
        for attempt in tuple(self.attempts):
            name = attempt.endpoint.name
            if attempt.address not in addresses[name]:
                self.attempts.remove(attempt)
                self._drop(attempt, DialResult.ABANDONED)
                dropped.add(name)
            elif len(attempt.endpoint.addresses) == 1:  # of several, it may be one by now
                attempt.endpoint = usable[name]
        for name, there in addresses.items():
            known = _addresses_of(name, before)
            joined = [address for address in there if address not in known]
            if joined or (there and name in dropped):
                self._offer(name, joined)
        if not self.attempts:
            self._next(now)

    def _offer(self, name: str, joined: Sequence[str]) -> None:
        """The endpoint has addresses that this dial could not know, or lost one of its own."""
        if any(attempt.endpoint.name == name for attempt in self.attempts):
            # What is untried when an attempt under way fails, or gets company, is kept by name.
            self.untried[name] += joined
        else:
            del self.untried[name]  # pick it again

    def won(self, attempt: Attempt, mask: int) -> None:
        self.dialer.unfinished.pop(self, None)
        self.attempts.remove(attempt)
        self._release(attempt)
        if self.dialer.addresses.failures:
            self.dialer.addresses.answered(attempt.endpoint.name, attempt.address)
        if self.attempts:
            self._leave_losers(attempt)
        self.caller.connected(
            attempt.fd,
            attempt.endpoint,
            attempt.address,
            mask,
            0,
            attempt.started_at,
            self.made,
        )

    def failed(self, attempt: Attempt, code: int) -> None:
        """This attempt came to nothing: the endpoint's next address, else the next endpoint."""
        now = time.monotonic()
        self.attempts.remove(attempt)
        code = answer_of(code)
        result = result_of(code)
        self._drop(attempt, result)
        endpoint = attempt.endpoint
        self._blame(endpoint, attempt.address, code, result, now)
        under_way = any(other.endpoint.name == endpoint.name for other in self.attempts)
        if under_way or not self._attempt(endpoint, now):
            self._next(now)

    def _next(self, now: float) -> None:
        """Start an attempt to the next endpoint that the table has; else wait or give up."""
        while not self.starved and (endpoint := self.dialer.table.pick(self.untried)):
            if self._attempt(endpoint, now):
                return
        if self.attempts:
            return
        if self.local:
            self.waits_until = now + LOOK_AGAIN_S
        elif not self.untried:
            self._give_up(End.NO_ENDPOINT)
        else:
            self._give_up(End.DIAL_FAILED)

    def _hedge(self, now: float) -> None:
        if any(attempt.look() for attempt in tuple(self.attempts)) or not self._may_add():
            return
        endpoint = self.dialer.table.pick(self.untried) or self._with_untried()
        if endpoint is not None:
            self._attempt(endpoint, now)

    def _with_untried(self) -> Endpoint | None:
        """An endpoint that is dialed, and has an address that was not dialed yet."""
        left = (each.endpoint for each in self.attempts if self.untried[each.endpoint.name])
        return next(left, None)

    def _attempt(self, endpoint: Endpoint, now: float) -> bool:
        """Connect to the endpoint's next address, each only once; whether one is under way."""
        name = endpoint.name
        untried = self.untried.get(name)
        if untried is None:
            untried = self.untried[name] = list(self.dialer.order(endpoint, now))
        while untried:
            address = untried.pop(0)
            try:
                self.begun = self.dialer.begin(endpoint, address)
            except OSError as error:
                self._could_not(endpoint, address, error.errno or errno.EIO, now)
                if self.starved:
                    break
            else:
                self._add(endpoint, address, now)
                return True
        return False

    def _add(self, endpoint: Endpoint, address: str, now: float) -> None:
        """An attempt of what has just begun."""
        self.made += 1
        extra = bool(self.attempts)
        if extra:
            self.dialer.budget.spend()
        attempt = Attempt(self, endpoint, address, self.begun, now, extra)
        self.attempts.append(attempt)
        self.begun = -1
        self.dialer.poller.add(attempt.fd, attempt, DIALING)
        if not endpoint.port:
            # A UNIX socket is connected already. Its first event may be that the endpoint has said
            # everything and closed, which is no failure.
            self.won(attempt, OUT)
            return
        doubtful = self.dialer.addresses.is_doubtful(endpoint.name, address)
        if doubtful and self._may_add():
            # It is tried again after it failed; this client must not wait for the outcome.
            self._attempt(endpoint, now)

    def _may_add(self) -> bool:
        """Whether one more attempt may run beside those under way."""
        return len(self.attempts) < MOST_ATTEMPTS and self.dialer.budget.free > 0

    def _could_not(self, endpoint: Endpoint, address: str, code: int, now: float) -> None:
        self.made += 1
        result = result_of(code)
        self._count(endpoint.name, result)
        self._blame(endpoint, address, code, result, now)

    def _blame(
        self, endpoint: Endpoint, address: str, code: int, result: DialResult, now: float
    ) -> None:
        if result is DialResult.LOCAL:
            self.local = True
            self.starved = code in EXHAUSTED
            if not self.starved:
                full = code == errno.EAGAIN and not endpoint.port
                error = QUEUE_FULL if full else os.strerror(code)
                self.dialer.tell_local_failure(endpoint.name, address, error, now)
            return
        dialer = self.dialer
        if not self.untried[endpoint.name]:
            dialer.table.suspect(endpoint.name)
        dialer.addresses.failed(endpoint, address, now)
        dialer.on_failed(endpoint.name, address, result, os.strerror(code))

    def _drop(self, attempt: Attempt, result: DialResult) -> None:
        self._count(attempt.endpoint.name, result)
        if result is DialResult.ABANDONED:
            # It may have connected just now: nobody was there, which is not an empty stream.
            arm_reset(attempt.fd)
        self._release(attempt)
        self.dialer.poller.close(attempt.fd)

    def _release(self, attempt: Attempt) -> None:
        """The session's own two descriptors include one attempt; others are counted apart."""
        if attempt.extra:
            self.dialer.budget.give_back()

    def _count(self, name: str, result: DialResult) -> None:
        self.dialer.count(name).count_dial(result)

    def _leave_losers(self, winner: Attempt) -> None:
        """Remember who was slow: this worker dials it last now, and the master may look at it.

        Without this, a black hole would cost every further client of it the hedge delay, because
        its attempts always lose before they time out.
        """
        for loser in self.attempts:
            slow = loser.started_at <= winner.started_at and not is_connected(loser.fd)
            self._drop(loser, DialResult.ABANDONED)
            if slow:
                self._remember_slow(loser, winner)
        self.attempts.clear()

    def _remember_slow(self, loser: Attempt, winner: Attempt) -> None:
        dialer, endpoint = self.dialer, loser.endpoint
        if endpoint.name == winner.endpoint.name:
            error = f"{loser.address} is slower than the next address, dialed later"
            dialer.addresses.failed(endpoint, loser.address, winner.started_at)
        elif loser.started_at < winner.started_at:
            error = "slower than the next endpoint, dialed later"
            dialer.table.suspect(endpoint.name)
        else:
            return
        dialer.on_failed(endpoint.name, loser.address, DialResult.ABANDONED, error)

    def _give_up(self, end: End) -> None:
        self.dialer.unfinished.pop(self, None)
        self.caller.gave_up(end, self.made)


def _addresses_of(name: str, usable: Mapping[str, Endpoint]) -> tuple[str, ...]:
    return usable[name].addresses if name in usable else ()


class Attempt:
    """One connect under way to one address of one endpoint. Owns its descriptor until it wins."""

    __slots__ = ("address", "dial", "endpoint", "extra", "fd", "started_at")

    def __init__(
        self,
        dial: Dial,
        endpoint: Endpoint,
        address: str,
        fd: int,
        now: float,
        extra: bool,
    ) -> None:
        self.dial = dial
        self.endpoint = endpoint
        self.address = address
        self.fd = fd
        self.started_at = now
        self.extra = extra

    def on_event(self, mask: int) -> None:
        if mask & (ERR | HUP):
            self.dial.failed(self, error_of(self.fd) or errno.ECONNRESET)
        elif mask & OUT:
            self._connected(mask)

    def look(self) -> bool:
        """Act on what the kernel knows already; False: the connect is still under way.

        The event may be there and wait, behind those of thousands of busy sessions.
        """
        if code := error_of(self.fd):
            self.dial.failed(self, code)
        elif is_connected(self.fd):
            self._connected(OUT)
        else:
            return False
        return True

    def _connected(self, mask: int) -> None:
        port = self.endpoint.port
        if port in self.dial.dialer.ephemeral and met_itself(self.fd, port):
            self.dial.failed(self, errno.ECONNREFUSED)
        else:
            self.dial.won(self, mask)

    def on_crash(self, error: Exception) -> None:
        self.dial.caller.crashed(error)
