"""The fleet's commands about one worker, carried out; the pool forks, and ends itself."""

from __future__ import annotations

from typing import assert_never

from gateway.core import messages, wire
from gateway.core.log import Log
from gateway.core.records import dataclass
from supervisor.core.workers import commands
from supervisor.core.workers.worker_id import WorkerId
from supervisor.workers.handles import WorkerHandles
from supervisor.workers.slot_sockets import Sockets

WorkerCommand = (
    commands.Kill
    | commands.Retire
    | commands.AdoptListeners
    | commands.ReleaseListeners
    | commands.ShutListeners
    | commands.LeaveBehind
)


@dataclass(frozen=True, slots=True)
class WorkerCommands:
    """Tells and kills workers through ``handles``; owns nothing.

    A worker that is gone by the time of a command needs it no more: its end is an event of its own.
    """

    handles: WorkerHandles
    sockets: Sockets
    log: Log

    def carry_out(self, command: WorkerCommand) -> None:
        """Do it now. OSError: the descriptors for it cannot be sent, or the sockets not be shut."""
        match command:
            case commands.Kill(who, reason):
                self.handles.kill(who, reason)
            case commands.Retire(who, deadline_s, close_listeners):
                if handle := self.handles.find(who):
                    handle.leaving = True
                    drain = messages.Drain(deadline_s, close_listeners)
                    handle.channel.send(wire.encode(drain), messages.Drain)
            case commands.AdoptListeners(by, slot):
                self._adopt(by, slot)
            case commands.ReleaseListeners(by, slot):
                if handle := self.handles.find(by):
                    handle.channel.pass_down(messages.Release(slot))
            case commands.ShutListeners():
                self.sockets.shut()
            case commands.LeaveBehind(who):
                self.handles.leave_behind(who)
            case _:
                assert_never(command)

    def _adopt(self, by: WorkerId, slot: int) -> None:
        listeners = self.sockets[slot].listeners
        # Without any, all addresses are UNIX sockets', which every worker accepts from.
        if listeners and (handle := self.handles.find(by)):
            self.log.debug("adopting listeners", slot=by.slot, gen=by.gen, of_slot=slot)
            handle.channel.pass_down(messages.Adopt(slot), [sock.fileno() for sock in listeners])
