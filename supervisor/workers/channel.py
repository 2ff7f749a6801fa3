"""The master's ends of one worker's channel: never blocks, whatever the worker does.

Down the pipe go snapshots, loads and the order to drain; a slow pipe drops all but the newest
snapshot and loads. Through the control socket go the messages that carry descriptors, both ways.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence

from gateway.core import messages, wire

_CHUNK_BYTES = 256 * 1024
_MAX_FDS = 253
"""SCM_MAX_FD of the kernel (unix(7))."""


class Channel:
    """Owns ``pipe_w`` and ``control``; both are closed by :meth:`close`.

    ``on_message(message, fds)`` owns the descriptors it is given.
    ``on_broken(reason)`` is called once if the worker breaks the protocol.
    ``inherited``: from a former master, which may have read half of the first line, and whose
    workers may be of another release: what they say is left out where it is not understood.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        pipe_w: int,
        control: socket.socket,
        on_message: Callable[[messages.Up, list[int]], None],
        on_broken: Callable[[str], None],
        inherited: bool = False,
    ) -> None:
        self._loop = loop
        self.pipe_w = pipe_w
        self.control = control
        self._on_message = on_message
        self._on_broken = on_broken
        self._lines = wire.LineReader()
        self._fds: deque[int] = deque()
        self._writing = memoryview(b"")
        self._newest: dict[type, bytes] = {}
        self._passing: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self._closed = False
        self._inherited = inherited
        os.set_blocking(pipe_w, False)
        control.setblocking(False)
        loop.add_reader(control, self._read)

    def send(self, line: bytes, kind: type) -> None:
        """Write an encoded message to the pipe; of one kind only the newest waits.

        Encoded by the caller, because one snapshot goes to every worker.
        """
        if self._closed:
            return
        self._newest[kind] = line
        self._write()

    def pass_down(self, message: messages.Down, fds: Sequence[int] = ()) -> None:
        """Send a message with descriptors; they are duplicated now, so the caller may close."""
        if self._closed:
            return
        self._passing.append((wire.encode(message), tuple(os.dup(fd) for fd in fds)))
        if len(self._passing) == 1:
            self._pass()

    def drain(self) -> None:
        """Deliver what a worker that exited had still said."""
        while not self._closed and self._read():
            pass

    def close(self) -> None:
        """Close both ends and whatever descriptor was on its way."""
        if self._closed:
            return
        self._detach()
        os.close(self.pipe_w)
        self.control.close()

    def _detach(self) -> None:
        self._closed = True
        self._loop.remove_reader(self.control)
        self._loop.remove_writer(self.control)
        self._loop.remove_writer(self.pipe_w)
        for fd in [*self._fds, *(fd for _, fds in self._passing for fd in fds)]:
            os.close(fd)
        self._fds.clear()
        self._passing.clear()

    def _write(self) -> None:
        while self._writing or self._newest:
            if not self._writing:
                # Whole lines only are replaced: the one that is half written goes first.
                kind = next(iter(self._newest))
                self._writing = memoryview(self._newest.pop(kind))
            try:
                sent = os.write(self.pipe_w, self._writing)
            except BlockingIOError:
                self._loop.add_writer(self.pipe_w, self._write)
                return
            except OSError:  # the worker is gone: its pidfd says so
                self._newest.clear()
                self._writing = memoryview(b"")
                break
            self._writing = self._writing[sent:]
        self._loop.remove_writer(self.pipe_w)

    def _pass(self) -> None:
        while self._passing:
            line, fds = self._passing[0]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            try:
                sent = self.control.sendmsg([line], rights, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                self._loop.add_writer(self.control, self._pass)
                return
            except OSError:  # the worker is gone
                sent = len(line)
            for fd in fds:
                os.close(fd)
            if sent < len(line):
                self._passing[0] = (line[sent:], ())
            else:
                self._passing.popleft()
        self._loop.remove_writer(self.control)

    def _read(self) -> bool:
        """Read once; False if there was nothing, or nothing more will come."""
        try:
            data, fds = receive(self.control, _CHUNK_BYTES, _MAX_FDS)
        except BlockingIOError:
            return False
        except OSError:
            data, fds = b"", []
        self._fds.extend(fds)
        if not data:  # its exit comes through the pidfd
            self._loop.remove_reader(self.control)
            return False
        try:
            for line in self._lines.feed(data):
                self._dispatch(line)
        except wire.WireError as error:
            self._loop.remove_reader(self.control)
            self._on_broken(str(error))
            return False
        return True

    def _dispatch(self, line: bytes) -> None:
        if self._closed:
            return
        try:
            decoded = wire.decode(line)
        except wire.WireError:
            if not self._inherited:
                raise
            return
        match decoded:
            case messages.Bound(listeners) as message:
                if listeners > len(self._fds):
                    raise wire.WireError(
                        f"Bound with {listeners} listeners came with {len(self._fds)} descriptors"
                    )
                self._on_message(message, [self._fds.popleft() for _ in range(listeners)])
            case (
                messages.Ready()
                | messages.Failed()
                | messages.DialFailed()
                | messages.DialSucceeded()
                | messages.Report()
                | messages.Drained()
            ) as message:
                self._on_message(message, [])
            case other:
                raise wire.WireError(f"{type(other).__name__} came up; it only goes down")


def receive(sock: socket.socket, size: int, most_fds: int) -> tuple[bytes, list[int]]:
    """Read without waiting; the descriptors are the caller's and close on exec.

    socket.recv_fds takes flags and ignores them (CPython 3.11 to 3.13).
    """
    fds = array.array("i")
    data, ancillary, _, _ = sock.recvmsg(
        size,
        socket.CMSG_SPACE(most_fds * fds.itemsize),
        socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT,
    )
    for level, kind, rights in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(rights[: len(rights) - len(rights) % fds.itemsize])
    return data, list(fds)


def close_quietly(fds: Sequence[int]) -> None:
    """Close descriptors that may be gone already."""
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)
