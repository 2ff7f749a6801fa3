"""Worker handles: each live worker with its process, its channel and its latest report."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from functools import partial

from gateway.core import messages
from gateway.core.log import Log
from gateway.core.records import dataclass
from supervisor.core.admin.views import WorkerStatus, WorkerView
from supervisor.core.workers.descriptor_names import worker_names
from supervisor.core.workers.fleet import GIVING_UP
from supervisor.core.workers.slot import Worker
from supervisor.core.workers.worker_id import WorkerId
from supervisor.core.workers.worker_state import WorkerState
from supervisor.workers.channel import Channel
from supervisor.workers.descriptor_store import DescriptorStore
from supervisor.workers.fork import Child
from supervisor.workers.reading_time import ReadingTime
from supervisor.workers.scoreboard_rows import ScoreboardRows

HANGS = "worker hangs"
RECOVERED = "worker recovered"
LEFT_BEHIND = "worker left behind"

REPORT_HOLDS_S = 2.7
"""For so long a report counts as a sign of life of a worker whose beats we cannot read. It reports
once a second; the fleet's 0.3 s come on top, so two reports may be missing before it is late."""

_SHOWN = {
    WorkerState.STARTING: WorkerStatus.STARTING,
    WorkerState.READY: WorkerStatus.READY,
    # A hung worker is not live. The document has no state for it and says ``hangs`` beside.
    WorkerState.HUNG: WorkerStatus.STARTING,
    WorkerState.DRAINING: WorkerStatus.DRAINING,
    WorkerState.DYING: WorkerStatus.DRAINING,
}


@dataclass(slots=True)
class WorkerHandle:
    """One live worker; its owner is :class:`WorkerHandles`.

    ``version``: of the newest snapshot that it said it has; 0 until it says so. ``heard_at``: when
    it gave its last sign of life. ``beat_ns``: the last beat that was seen on the scoreboard.
    """

    child: Child
    channel: Channel
    report: messages.Report | None = None
    version: int = 0
    heard_at: float | None = None
    beat_ns: int = 0
    told_why: bool = False
    """Whether the log already has the reason for its end, so that its exit needs no warning."""
    leaving: bool = False
    """Whether it was told to drain."""
    told_hang: bool = False
    how: str = ""
    """How it ended, once it was reaped."""

    def descriptors(self, who: WorkerId) -> dict[str, int]:
        """What another master needs to have this worker, by name."""
        kept = self.child.control.fileno(), self.child.pipe_w, self.child.pidfd
        return dict(zip(worker_names(who), kept, strict=True))


class WorkerHandles:
    """Owns the processes and channels of all live workers, until they are reaped or :meth:`close`.

    ``on_message(who, message, fds)`` owns the descriptors it is given.
    ``on_exit(who, handle)`` is called when a worker is reaped and its descriptors are closed.
    ``store`` keeps what the next master needs to have a worker that is ready.
    """

    def __init__(
        self,
        log: Log,
        rows: ScoreboardRows,
        store: DescriptorStore,
        *,
        on_message: Callable[[WorkerId, messages.Up, list[int]], None],
        on_exit: Callable[[WorkerId, WorkerHandle], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._reading = ReadingTime(self._loop)
        self._log = log
        self._rows = rows
        self._descriptor_store = store
        self._on_message = on_message
        self._on_exit = on_exit
        self._handles: dict[WorkerId, WorkerHandle] = {}
        self._signs: dict[WorkerId, float] = {}
        """Until when the newest sign of life holds, of each worker that gave one since
        :meth:`collect_signs`."""
        self._unready: dict[int, int] = {}
        """Pids by pidfd, of workers that only have to be reaped."""
        self._introductions: list[tuple[WorkerId, int, socket.socket]] = []
        self._unwatched: list[Callable[[], None]] = []
        """What watches the workers of a former master for which there was no room."""

    def __getitem__(self, who: WorkerId) -> WorkerHandle:
        return self._handles[who]

    def find(self, who: WorkerId) -> WorkerHandle | None:
        """The worker's handle; None if it was reaped, or never existed."""
        return self._handles.get(who)

    def take(self, who: WorkerId, child: Child, *, inherited: bool = False) -> WorkerHandle:
        """Own a worker from now on. OSError: it could not be watched, and is gone.

        An inherited one may serve: it is kept, and watched as soon as there is room.
        """
        handle = self._make_handle(who, child, inherited=inherited)
        if inherited:
            self._watch_patiently(partial(self._watch, who, handle))
        else:
            try:
                self._watch(who, handle)
            except OSError:
                self._loop.remove_reader(child.control)
                child.abandon()
                raise
        self._handles[who] = handle
        return handle

    def _make_handle(self, who: WorkerId, child: Child, *, inherited: bool) -> WorkerHandle:
        channel = Channel(
            self._loop,
            pipe_w=child.pipe_w,
            control=child.control,
            on_message=lambda message, fds: self._hear(who, message, fds),
            on_lost=lambda reason: self.kill(who, reason),
            on_broken=lambda reason: self.on_protocol_error(who, reason),
            reading=self._reading,
            inherited=inherited,
        )
        if not self._rows.beats(who):  # until its first report
            self._signs[who] = self._loop.time() + REPORT_HOLDS_S
        # Only a heartbeat that is written from now on is a sign of life.
        return WorkerHandle(child, channel, beat_ns=self._rows.beat_ns(who))

    def _watch(self, who: WorkerId, handle: WorkerHandle) -> None:
        handle.channel.start_reading()
        self._loop.add_reader(handle.child.pidfd, self._reap, who)

    def _watch_patiently(self, watch: Callable[[], None]) -> None:
        try:
            watch()
        except OSError:
            self._unwatched.append(watch)

    def watch_again(self) -> None:
        """Watch what could not be for want of room."""
        while self._unwatched:
            try:
                self._unwatched[-1]()
            except OSError:
                return
            self._unwatched.pop()

    def pids(self) -> set[int]:
        """The processes of all live workers."""
        return {handle.child.pid for handle in self._handles.values()}

    def owns(self, pid: int) -> bool:
        """Whether the process is waited for here."""
        return pid in self._unready.values() or any(
            handle.child.pid == pid for handle in self._handles.values()
        )

    def reap_unready(self, pidfd: int, pid: int) -> None:
        """Wait for a worker of a former image that is not among ours; owns the pidfd."""
        self._unready[pidfd] = pid
        self._watch_patiently(partial(self._watch_unready, pidfd))

    def _watch_unready(self, pidfd: int) -> None:
        self._loop.add_reader(pidfd, self._on_unready_exit, pidfd)

    def _on_unready_exit(self, pidfd: int) -> None:
        self._loop.remove_reader(pidfd)
        del self._unready[pidfd]
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
        os.close(pidfd)

    def keep(self, who: WorkerId) -> None:
        """Have the store keep what the next master needs."""
        for name, fd in self[who].descriptors(who).items():
            self._descriptor_store.keep(name, fd)

    def with_clients(self) -> tuple[WorkerId, ...]:
        """The live workers that may have clients: those that are, or once were, ready."""
        return tuple(
            who for who, each in self._handles.items() if each.version or each.channel.inherited
        )

    def tell(self, who: WorkerId, line: bytes, kind: type) -> None:
        """Send an encoded message to one worker, if it lives; of a kind it gets the newest only."""
        if handle := self._handles.get(who):
            handle.channel.send(line, kind)

    def tell_all(self, line: bytes, kind: type) -> None:
        """Send an encoded message to every worker; a slow one gets the newest of a kind only."""
        for handle in self._handles.values():
            handle.channel.send(line, kind)

    def introduce(self, slot: int, inbox_w: socket.socket) -> None:
        """Make a new slot's inbox known to the workers of the others."""
        self._introductions += [(who, slot, inbox_w) for who in self._handles if who.slot != slot]
        self.go_on_introducing()

    def introduce_to(self, who: WorkerId, slot: int, inbox_w: socket.socket) -> None:
        """Make a slot's inbox known to this worker at the next opportunity."""
        self._introductions.insert(0, (who, slot, inbox_w))

    def go_on_introducing(self) -> None:
        """Make known what could not be for want of a descriptor."""
        while self._introductions:
            who, slot, inbox_w = self._introductions[-1]
            if handle := self._handles.get(who):
                try:
                    handle.channel.pass_down(messages.Peer(slot), [inbox_w.fileno()])
                except OSError:
                    return
            self._introductions.pop()

    def kill(self, who: WorkerId, reason: str) -> None:
        if handle := self._handles.get(who):
            handle.told_why = handle.told_why or reason == GIVING_UP
            level = self._log.debug if reason == GIVING_UP else self._log.warn
            level("killing worker", slot=who.slot, gen=who.gen, pid=handle.child.pid, why=reason)
            handle.child.kill()

    def leave_behind(self, who: WorkerId) -> None:
        """The gateway ends now, and a worker that was killed does not."""
        if handle := self._handles.get(who):
            error = "the kernel does not end it yet: it is in state D, or frozen"
            self._log.error(
                LEFT_BEHIND, slot=who.slot, gen=who.gen, pid=handle.child.pid, error=error
            )

    def on_protocol_error(self, who: WorkerId, reason: str) -> None:
        """The two ends disagree about the protocol: that is a bug, and the worker has to go."""
        if handle := self._handles.get(who):
            self._log.error("worker breaks the protocol", slot=who.slot, gen=who.gen, error=reason)
            handle.child.kill()

    def collect_signs(self) -> dict[WorkerId, float]:
        """Who gave a sign of life since the last call, and until when it holds.

        The beats on the scoreboard tell of hangs long before missing reports would.
        """
        for who, handle in self._handles.items():
            if (beat_ns := self._rows.beat_ns(who)) != handle.beat_ns:
                handle.beat_ns = beat_ns
                self._note_sign(who, handle, beat_ns / 1e9)
        signs, self._signs = self._signs, {}
        return signs

    def _note_sign(self, who: WorkerId, handle: WorkerHandle, at: float) -> None:
        handle.heard_at = at if handle.heard_at is None else max(handle.heard_at, at)
        self._signs[who] = handle.heard_at + (0.0 if self._rows.beats(who) else REPORT_HOLDS_S)

    def tell_hang(self, who: WorkerId, hangs: bool) -> None:
        """Log that a worker hangs, or goes on; once each."""
        handle = self._handles.get(who)
        if handle is None or hangs == handle.told_hang:
            return
        handle.told_hang = hangs
        tell, msg = (self._log.warn, HANGS) if hangs else (self._log.info, RECOVERED)
        tell(msg, slot=who.slot, gen=who.gen, pid=handle.child.pid)

    def view(self, worker: Worker) -> WorkerView:
        """What the fleet knows of a worker, and what it said itself."""
        handle = self._handles.get(worker.who)
        heard_at = handle.heard_at if handle is not None else None
        return WorkerView(
            slot=worker.who.slot,
            gen=worker.who.gen,
            pid=handle.child.pid if handle is not None else None,
            state=_SHOWN[worker.state],
            snapshot_version=handle.version if handle is not None else 0,
            heartbeat_age_s=None if heard_at is None else max(self._loop.time() - heard_at, 0.0),
            hangs=worker.state is WorkerState.HUNG,
            report=handle.report if handle is not None else None,
        )

    def close(self) -> None:
        """Let go; workers that live read the end of their pipe (or go on, if somebody else holds
        it)."""
        for handle in self._handles.values():
            self._loop.remove_reader(handle.child.pidfd)
            handle.channel.close()
            os.close(handle.child.pidfd)
        self._handles.clear()
        self._introductions.clear()
        self._unwatched.clear()
        for pidfd in self._unready:
            self._loop.remove_reader(pidfd)
            os.close(pidfd)
        self._unready.clear()

    def _hear(self, who: WorkerId, message: messages.Up, fds: list[int]) -> None:
        handle = self._handles[who]
        self._note_sign(who, handle, self._loop.time())
        match message:
            case messages.Ready(snapshot_version):
                handle.version = snapshot_version
            case messages.Report():
                handle.report, handle.version = message, message.snapshot_version
                self._rows.report(who, message.sessions)
        self._on_message(who, message, fds)

    def _reap(self, who: WorkerId) -> None:
        handle = self._handles[who]
        how = handle.how = handle.child.reap()
        self._loop.remove_reader(handle.child.pidfd)
        handle.channel.drain()
        handle.channel.close()
        os.close(handle.child.pidfd)
        del self._handles[who]
        self._signs.pop(who, None)
        for name in worker_names(who):
            self._descriptor_store.remove(name)
        # Nobody knows how a worker ended that is no child of ours: well, if it was told to drain.
        expected = how == "exit 0" or handle.told_why or (how == "gone" and handle.leaving)
        level = self._log.info if expected else self._log.warn
        level("worker exited", slot=who.slot, gen=who.gen, pid=handle.child.pid, how=how)
        self._on_exit(who, handle)
