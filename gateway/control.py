"""The worker's end of the channel: commands come down, reports and evidence go up.

Down the pipe come snapshots, loads and most commands; down the control socket come the messages
that carry descriptors or concern them. Everything up goes through the control socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections import deque
from collections.abc import Callable, Generator, Sequence

from gateway.core import messages, wire
from gateway.descriptors import close_all
from gateway.message_socket import CHUNK_BYTES, LEAST_BYTES, MessageSocket, tell_unhandled


class Control:
    """Owns ``pipe_r`` and ``sock``; calls ``on_message(message, fds)`` and ``on_orphaned()``, once.

    ``on_message`` owns the descriptors that it is given. ``on_lost(message)``: one was left out
    because its descriptors were lost. ``on_garbage(error)``: one was not understood.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        pipe_r: int,
        sock: socket.socket,
        on_message: Callable[[messages.Down, list[int]], None],
        on_orphaned: Callable[[], None],
        on_lost: Callable[[messages.Down | messages.Up], None],
        on_garbage: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._pipe_r = pipe_r
        self._on_message = on_message
        self._on_orphaned = on_orphaned
        self._on_garbage = on_garbage
        self._pipe_lines = wire.LineReader()
        self._waiting: deque[bytes] = deque()
        self._steps: Generator[None, None, messages.Down | messages.Up] | None = None
        self._orphaned = False
        os.set_blocking(pipe_r, False)
        loop.add_reader(pipe_r, self._read_pipe)
        self._socket = MessageSocket(
            loop,
            sock,
            on_message=self._on_socket_message,
            on_lost=on_lost,
            on_garbage=on_garbage,
        )
        self._socket.start_reading()

    def send(self, message: messages.Up, fds: Sequence[int] = ()) -> None:
        """Send, or queue if the master is slow to read; a dead master is no error."""
        if not self._orphaned:
            self._socket.send(message, fds)

    def waiting(self) -> list[type]:
        """The types of the messages that the master has not made room for yet, oldest first."""
        return self._socket.waiting()

    def close(self) -> None:
        """Try once to send what waits, then close both ends."""
        self._stop_reading_pipe()
        os.close(self._pipe_r)
        self._socket.close()

    def _read_pipe(self) -> None:
        try:
            data = os.read(self._pipe_r, CHUNK_BYTES)
        except BlockingIOError:
            return
        except MemoryError:  # nothing was read yet: a page may be there
            data = os.read(self._pipe_r, LEAST_BYTES)
        if not data:
            while self._advance():
                pass
            self._orphan()
            return
        # A new master begins with an empty line, which ends what the one before left half written.
        self._waiting.extend(line for line in self._pipe_lines.feed(data) if line)
        if self._steps is None:
            self._decode_waiting()

    def _decode_waiting(self) -> None:
        """Decode what came down the pipe, in its order; a big snapshot takes several loop turns."""
        while self._advance():
            if self._steps is not None:
                self._loop.call_soon(self._decode_waiting)
                return

    def _advance(self) -> bool:
        """Decode one step of the current message or of the next one; False if there is none."""
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

    def _deliver(self, message: messages.Down | messages.Up) -> None:
        """Pass on a message of the pipe; a bug in its handler must not cost those behind it."""
        try:
            self._on_message(message, [])  # type: ignore[arg-type]  # the master sends Down only
        except Exception as error:  # noqa: BLE001 - see above
            tell_unhandled(self._loop, message, error)

    def _on_socket_message(self, message: messages.Down | messages.Up, fds: list[int]) -> None:
        match message:
            case messages.Adopt():
                usable = bool(fds)
            case messages.Peer():
                usable = len(fds) == 1
            case _:
                usable = not fds
        if usable:
            self._on_message(message, fds)  # type: ignore[arg-type]  # the master sends Down only
        else:
            close_all(fds)
            self._on_garbage(f"{type(message).__name__} came with {len(fds)} descriptors")

    def _orphan(self) -> None:
        self._stop_reading_pipe()
        self._socket.stop_reading()
        self._orphaned = True
        self._on_orphaned()

    def _stop_reading_pipe(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._loop.remove_reader(self._pipe_r)
