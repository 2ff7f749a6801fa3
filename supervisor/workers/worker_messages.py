"""What workers say, and what the pool makes of it: mostly an event for the fleet."""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from gateway.core import messages
from gateway.core.address import Address, tcp_only
from gateway.core.log import Log
from gateway.core.records import dataclass
from gateway.descriptors import close_all
from supervisor.core.workers import events
from supervisor.core.workers.worker_id import WorkerId
from supervisor.workers.handles import WorkerHandles
from supervisor.workers.session_survey import SessionSurvey
from supervisor.workers.slot_sockets import Sockets

EXPECTED_ADDRESS = "in --listen-addr an address of this host on which no other program listens"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerMessages:
    """Takes the messages of all workers; owns nothing.

    ``feed(event)`` tells the fleet. ``on_failure(text)``: why a worker did not come up.
    ``pass_on(who, message)`` gets what somebody beside the pool may want to know too.
    """

    listen: tuple[Address, ...]
    handles: WorkerHandles
    sockets: Sockets
    survey: SessionSurvey
    log: Log
    feed: Callable[[events.Event], None]
    on_failure: Callable[[str], None]
    pass_on: Callable[[WorkerId, messages.Up], None]

    def take(self, who: WorkerId, message: messages.Up, fds: list[int]) -> None:
        """One message of a live worker; owns the descriptors that came with it."""
        match message:
            case messages.Bound():
                self._on_bound(who, fds)
            case messages.Ready():
                self.handles.keep(who)
                pid = self.handles[who].child.pid
                self.log.info("worker ready", slot=who.slot, gen=who.gen, pid=pid)
                self.feed(events.WorkerReady(who))
            case messages.Failed():
                self._on_failed(who, message)
            case messages.Missed(kind, of_slot):
                self._send_again(who, kind, of_slot)
            case (
                messages.Report()
                | messages.DialFailed()
                | messages.DialSucceeded()
                | messages.Drained()
            ):
                pass
            case messages.SessionSlice() | messages.SessionDetails():
                self.survey.hear(who, message)
                return
            case _:
                assert_never(message)
        self.pass_on(who, message)

    def _on_bound(self, who: WorkerId, fds: list[int]) -> None:
        if self.sockets[who.slot].listeners or len(fds) != len(tcp_only(self.listen)):
            close_all(fds)
            self.handles.on_protocol_error(who, f"Bound with {len(fds)} listeners, not expected")
            return
        self.sockets.bind(who.slot, fds)
        self.feed(events.WorkerBound(who))

    def _on_failed(self, who: WorkerId, message: messages.Failed) -> None:
        self.handles[who].told_why = True
        reason, error = message.reason, message.error
        hint = {"expected": EXPECTED_ADDRESS} if reason == "bind" else {}
        self.on_failure(f"{error}; expected {EXPECTED_ADDRESS}" if hint else error)
        self.log.error(
            "worker cannot start", slot=who.slot, gen=who.gen, reason=reason, error=error, **hint
        )
        self.feed(events.WorkerFailed(who, reason))

    def _send_again(self, who: WorkerId, kind: str, slot: int) -> None:
        """The worker had no room for the descriptors that came with a message."""
        if kind == messages.Peer.__name__ and slot in self.sockets:
            self.handles.introduce_to(who, slot, self.sockets[slot].inbox_w)
        elif kind == messages.Adopt.__name__:
            self.feed(events.AdoptionFailed(slot, by=who))
