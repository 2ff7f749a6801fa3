"""Where log lines go: a descriptor that many processes share and that none of them may wait for.

Standard error may be a pipe that nobody reads, a terminal that is stopped, the journal's socket.
A write that blocked would stop every session of a worker, so nothing here blocks, and a line that
cannot be written now waits in a bounded queue; beyond that it is dropped and counted.

O_NONBLOCK belongs to the open file description, which is shared with the shell, the pager and the
other workers. So it is never set on the inherited one: pipes and terminals are opened once more
through ``/proc/self/fd`` (a description of our own), sockets are sent to with MSG_DONTWAIT, and
regular files do not block in the first place (and are not opened again: the shared description
holds the shared offset).

A pipe that may not be opened again, because it is another user's, gets each line by splice from a
pipe of our own: splice(2) can be told not to wait whatever the description says. Where splice is
refused, and for the terminal of another user, the kernel is asked for room before each write. Then
a write waits if another process takes the room in between.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import enum
import os
import select
import socket
import stat
import time
from collections.abc import Callable

MAX_LINE_BYTES = 4096
"""PIPE_BUF on Linux: a write of at most this many bytes into a pipe is never torn, pipe(7)."""

MAX_QUEUED_BYTES = 256 * 1024
"""What one process keeps for a slow reader: some thousand lines."""


class _SinkKind(enum.Enum):
    FILE = enum.auto()
    OWN = enum.auto()
    """A pipe or terminal, opened again for ourselves with O_NONBLOCK."""
    SHARED = enum.auto()
    """A pipe or terminal that could not be opened again (no /proc, another user's)."""
    SOCKET = enum.auto()


class LineSink:
    """Writes whole lines to ``fd`` with one write each; never blocks, never raises.

    Owns what it opens (``close``), never ``fd`` itself. One per process: a child makes its own.
    ``dropped`` counts lines that were lost, over the sink's life. ``on_room`` is called each time
    the queue has been written to its end.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._own_fd = -1
        self._own_pipe: tuple[int, int] | None = None
        """Empty between two writes; only for a pipe that could not be opened again."""
        self._sock: socket.socket | None = None
        self._kind = _SinkKind.FILE
        self._queue: collections.deque[bytes] = collections.deque()
        self._queued_bytes = 0
        self._torn = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._room: select.epoll | None = None
        self.dropped = 0
        self.on_room: Callable[[], None] | None = None
        with contextlib.suppress(OSError):
            self._open(fd)

    def _open(self, fd: int) -> None:
        mode = os.fstat(fd).st_mode
        if stat.S_ISSOCK(mode):
            self._sock = socket.socket(fileno=os.dup(fd))
            self._fd, self._kind = self._sock.fileno(), _SinkKind.SOCKET
        elif stat.S_ISFIFO(mode) or os.isatty(fd):
            self._kind = _SinkKind.SHARED
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            try:
                self._own_fd = os.open(f"/proc/self/fd/{fd}", flags)
            except OSError:
                if stat.S_ISFIFO(mode):
                    self._own_pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            else:
                self._fd, self._kind = self._own_fd, _SinkKind.OWN

    @property
    def queued(self) -> int:
        """How many lines wait for the reader."""
        return len(self._queue)

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let ``loop`` write what is queued as soon as there is room."""
        self._loop = loop
        if self._queue:
            self._await_room()

    def write(self, line: bytes) -> None:
        """Take one line, newline included; at most MAX_LINE_BYTES, or it may be torn."""
        if self._queue:
            self._write_queued()
        if not self._queue:
            line = self._write_now(line)
        elif self._queued_bytes + len(line) > MAX_QUEUED_BYTES:
            self.dropped += 1
            return
        if line:
            self._keep(line)
            self._await_room()

    def flush(self, deadline_s: float) -> None:
        """Write what is queued, waiting for the reader for at most ``deadline_s`` seconds.

        For the end of a process only: this is the one thing here that waits.
        """
        end_at = time.monotonic() + deadline_s
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        while self._queue and (left_s := end_at - time.monotonic()) > 0:
            self._write_queued()
            if self._queue:
                poll.poll(left_s * 1000)

    def close(self) -> None:
        """Give back what was opened here; what is still queued counts as dropped."""
        self._stop_waiting()
        self._loop = None
        self.dropped += len(self._queue)
        self._queue.clear()
        self._queued_bytes = 0
        if self._sock is not None:
            self._sock.close()
        if self._own_fd >= 0:
            os.close(self._own_fd)
            self._own_fd = -1
        self._close_own_pipe()

    def _close_own_pipe(self) -> None:
        if self._own_pipe is not None:
            for end in self._own_pipe:
                os.close(end)
            self._own_pipe = None

    def abandon(self) -> None:
        """Forget everything, in a child right after the fork: it all belongs to the parent.

        The child closes the descriptors that it does not need elsewhere. Only the epoll is closed
        here, because its object would close that number later, when it may be in use again.
        """
        if self._room is not None:
            self._room.close()
            self._room = None
        if self._sock is not None:
            self._sock.detach()
        self._own_fd = -1
        self._own_pipe = None
        self._loop = None
        self._queue.clear()

    def _write_now(self, line: bytes) -> bytes:
        """Write; what has to be written later is returned, empty if that is nothing."""
        if self._torn:
            # The last line was cut in two (a full disk): at least this one starts on its own.
            line = b"\n" + line
        try:
            done = self._send(line)
        except BlockingIOError:
            return line.removeprefix(b"\n") if self._torn else line
        except OSError:
            self.dropped += 1
            return b""
        self._torn = False
        if done == len(line):
            return b""
        if self._kind is _SinkKind.FILE:
            self._torn = True
            self.dropped += 1
            return b""
        return line[done:]  # a terminal takes as much as it likes; it has no other writers

    def _send(self, line: bytes) -> int:
        if self._sock is not None:
            return self._sock.send(line, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        if self._kind is _SinkKind.SHARED:
            return self._send_shared(line)
        return os.write(self._fd, line)

    def _send_shared(self, line: bytes) -> int:
        if self._own_pipe is not None:
            try:
                return self._splice(line, *self._own_pipe)
            except (BlockingIOError, BrokenPipeError):
                raise
            except OSError:  # refused, as by a seccomp profile
                self._close_own_pipe()
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        # Room in a pipe is room for a page, which is a line; room in a terminal may be one byte.
        step = 1 if os.isatty(self._fd) else len(line)
        done = 0
        while done < len(line) and poll.poll(0):
            done += os.write(self._fd, line[done : done + step])
        if not done:
            raise BlockingIOError
        return done

    def _splice(self, line: bytes, own_r: int, own_w: int) -> int:
        """Move the line as one buffer of a pipe, so it is not torn; how many bytes went."""
        left = os.write(own_w, line)
        try:
            done = os.splice(own_r, self._fd, left, flags=os.SPLICE_F_NONBLOCK)
            left -= done
            return done
        finally:
            if left:
                os.read(own_r, left)

    def _keep(self, line: bytes) -> None:
        self._queue.append(line)
        self._queued_bytes += len(line)

    def _write_queued(self) -> None:
        while self._queue:
            line = self._queue.popleft()
            self._queued_bytes -= len(line)
            if rest := self._write_now(line):
                self._queue.appendleft(rest)
                self._queued_bytes += len(rest)
                return
        self._stop_waiting()
        if self.on_room is not None:
            self.on_room()

    def _await_room(self) -> None:
        if self._loop is None or self._room is not None or self._loop.is_closed():
            return
        # Not loop.add_writer(fd): libuv would make the description non-blocking, and a socket's is
        # shared. What the loop watches is an epoll of our own that watches the descriptor.
        room: select.epoll | None = None
        try:
            room = select.epoll()
            room.register(self._fd, select.EPOLLOUT)
            self._loop.add_reader(room.fileno(), self._write_queued)
        except (OSError, RuntimeError):  # what cannot be watched is tried again at the next line
            if room is not None:
                room.close()
        else:
            self._room = room

    def _stop_waiting(self) -> None:
        if self._room is None:
            return
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._room.fileno())
        self._room.close()
        self._room = None
