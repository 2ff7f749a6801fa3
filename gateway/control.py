"""The worker's end of the channel: messages come down, reports and evidence go up.

Down the pipe come snapshots, loads and the order to drain; down the UNIX socket come the messages
that carry descriptors or concern them. Everything up goes through the UNIX socket. Descriptors and
messages each keep their order, so a message takes as many from the front as its type has.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import socket
from collections import deque
from collections.abc import Callable, Generator, Sequence

from gateway.core import messages, wire

_CHUNK_BYTES = 256 * 1024
_MAX_FDS = 253
"""SCM_MAX_FD of the kernel (unix(7))."""
_MAX_QUEUED = 4096
"""Messages waiting for a master that does not read; evidence beyond it is dropped, oldest first."""


class Control:
    """Owns ``pipe_r`` and ``sock``; calls ``on_message(message, fds)`` and ``on_orphaned()``, once.

    Whoever gets ``fds`` owns them. ``on_garbage(error)``: a line was no message and is left out.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        pipe_r: int,
        sock: socket.socket,
        listeners: int,
        on_message: Callable[[messages.Down, list[int]], None],
        on_orphaned: Callable[[], None],
        on_garbage: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._pipe_r = pipe_r
        self._sock = sock
        self._listeners = listeners
        self._on_message = on_message
        self._on_orphaned = on_orphaned
        self._on_garbage = on_garbage
        self._pipe_lines = wire.LineReader()
        self._sock_lines = wire.LineReader()
        self._fds: deque[int] = deque()
        self._unsent: deque[tuple[bytes, Sequence[int]]] = deque()
        self._orphaned = False
        self._waiting: deque[bytes] = deque()
        self._steps: Generator[None, None, messages.Down | messages.Up] | None = None
        os.set_blocking(pipe_r, False)
        sock.setblocking(False)
        loop.add_reader(pipe_r, self._read_pipe)
        loop.add_reader(sock, self._read_sock)

    def send(self, message: messages.Up, fds: Sequence[int] = ()) -> None:
        """Send, or queue if the master is slow to read; a dead master is no error."""
        if self._orphaned:
            return
        if len(self._unsent) >= _MAX_QUEUED:
            # The front one may be half sent: cutting it out would garble the stream.
            del self._unsent[1]
        self._unsent.append((wire.encode(message), fds))
        if len(self._unsent) == 1:
            self._flush()

    def close(self) -> None:
        """Try once to send what waits, then close both ends."""
        if not self._orphaned:
            self._flush()
        self._detach()
        os.close(self._pipe_r)
        self._sock.close()
        for fd in self._fds:
            os.close(fd)

    def _flush(self) -> None:
        while self._unsent:
            line, fds = self._unsent[0]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            try:
                sent = self._sock.sendmsg([line], rights, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                self._loop.add_writer(self._sock, self._flush)
                return
            except OSError:  # the master died: the pipe says so too
                self._unsent.clear()
                break
            if sent < len(line):
                self._unsent[0] = (line[sent:], ())
            else:
                self._unsent.popleft()
        self._loop.remove_writer(self._sock)

    def _read_pipe(self) -> None:
        try:
            data = os.read(self._pipe_r, _CHUNK_BYTES)
        except BlockingIOError:
            return
        if not data:
            while self._advance():
                pass
            self._orphan()
            return
        self._waiting.extend(self._pipe_lines.feed(data))
        if self._steps is None:
            self._go_on()

    def _go_on(self) -> None:
        """Decode what came down the pipe, in its order; a big snapshot takes several turns."""
        while self._advance():
            if self._steps is not None:
                self._loop.call_soon(self._go_on)
                return

    def _advance(self) -> bool:
        """One step of the message at handle or of the next one; False if there is none."""
        if self._steps is None:
            if not self._waiting:
                return False
            self._steps = wire.decode_in_steps(self._waiting.popleft())
        try:
            next(self._steps)
        except StopIteration as done:
            self._steps = None
            self._deliver(done.value)
        except wire.WireError as error:  # of a master of another release, after an upgrade
            self._steps = None
            self._on_garbage(str(error))
        return True

    def _read_sock(self) -> None:
        try:
            data, fds, _flags, _ = socket.recv_fds(
                self._sock, _CHUNK_BYTES, _MAX_FDS, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except OSError:
            data, fds = b"", []
        self._fds.extend(fds)
        if not data:  # the pipe decides whether the master is gone; this end has nothing more
            self._loop.remove_reader(self._sock)
            return
        for line in self._sock_lines.feed(data):
            self._dispatch(line)

    def _dispatch(self, line: bytes) -> None:
        try:
            message = wire.decode(line)
        except wire.WireError as error:
            self._on_garbage(str(error))
            return
        self._deliver(message)

    def _deliver(self, message: messages.Down | messages.Up) -> None:
        match message:
            case messages.Adopt():
                wanted = self._listeners
            case messages.Peer():
                wanted = 1
            case _:
                wanted = 0
        fds = [self._fds.popleft() for _ in range(min(wanted, len(self._fds)))]
        self._on_message(message, fds)  # type: ignore[arg-type]  # the master sends Down only

    def _orphan(self) -> None:
        self._detach()
        self._orphaned = True
        self._on_orphaned()

    def _detach(self) -> None:
        for remove, fd in (
            (self._loop.remove_reader, self._pipe_r),
            (self._loop.remove_reader, self._sock),
            (self._loop.remove_writer, self._sock),
        ):
            with contextlib.suppress(OSError, ValueError):
                remove(fd)
