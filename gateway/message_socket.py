"""One end of the control socket: messages with descriptors, both ways, the same in both planes.

A message says in its line how many descriptors belong to it (see ``wire``), and one send carries
them all. So a message that is not understood, or whose descriptors were lost, costs only itself.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Sequence

from gateway.core import messages, wire
from gateway.core.outcome import EXHAUSTED
from gateway.core.records import dataclass
from gateway.descriptors import (
    NO_ROOM_TO_SEND,
    DescriptorsLostError,
    close_all,
    duplicate,
    receive,
    send,
)
from gateway.timer import Timer

CHUNK_BYTES = 256 * 1024
LEAST_BYTES = 4096
"""Read at once, and where there is no memory for so much."""

MOST_QUEUED_BYTES = 4 * 1024 * 1024
"""What waits for a peer that does not read; beyond it, messages that may be lost are dropped.

Two reports of 3,000 endpoints fit.
"""

AGAIN_S = 0.1
"""After how long the kernel is asked anew that had no room for a message, or to watch a socket."""


@dataclass(slots=True, eq=False)
class _Outgoing:
    """One message on its way; owns duplicates of its descriptors until they are sent."""

    kind: type
    line: bytes
    fds: tuple[int, ...]
    begun: bool = False


class MessageSocket:
    """Owns ``sock`` and whatever descriptor is on its way; never blocks.

    ``on_message(message, fds)`` owns the descriptors that it is given.
    ``on_lost(message)``: a message was left out, because this process had no room for its
    descriptors. ``on_garbage(error)``: one was left out because it was not understood, or because
    its descriptors were not those that it announced. ``may_read()``: whether to read in this turn
    of the loop what has come; if not, it is asked again in the next one.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        *,
        on_message: Callable[[messages.Down | messages.Up, list[int]], None],
        on_lost: Callable[[messages.Down | messages.Up], None],
        on_garbage: Callable[[str], None],
        may_read: Callable[[], bool] = lambda: True,
    ) -> None:
        self._loop = loop
        self.sock = sock
        self._on_message = on_message
        self._on_lost = on_lost
        self._on_garbage = on_garbage
        self._may_read = may_read
        self._lines = wire.LineReader()
        self._received: deque[list[int] | None] = deque()
        """Descriptors of messages whose line is not read yet, by message; None: they were lost."""
        self._outgoing: deque[_Outgoing] = deque()
        self._queued_bytes = 0
        self._closed = False
        self._again = Timer(loop, self._flush)
        sock.setblocking(False)

    def start_reading(self) -> None:
        """OSError: there is no room to watch the socket; it may be tried again."""
        self._loop.add_reader(self.sock, self._on_readable)

    def send(self, message: messages.Down | messages.Up, fds: Sequence[int] = ()) -> None:
        """Send, or queue if the peer is slow to read; a peer that is gone is no error.

        The descriptors are duplicated now, so the caller may close its own. An OSError means that
        there is no room for the duplicates, and nothing is sent.
        """
        if self._closed:
            return
        line = wire.encode(message, descriptors=len(fds))
        kind = type(message)
        duplicates = duplicate(fds)
        self._make_room(len(line))
        self._outgoing.append(_Outgoing(kind, line, duplicates))
        self._queued_bytes += len(line)
        if len(self._outgoing) == 1:
            self._flush()

    def waiting(self) -> list[type]:
        """The types of the messages that are not sent to their end yet, the oldest first."""
        return [each.kind for each in self._outgoing]

    def _on_readable(self) -> None:
        if self._may_read():
            self.read()

    def read(self) -> bool:
        """Read once; False if there was nothing, or nothing more will come."""
        if self._closed:
            return False
        try:
            try:
                data, fds = receive(self.sock, CHUNK_BYTES)
            except MemoryError:  # nothing was read yet: a page may be there
                data, fds = receive(self.sock, LEAST_BYTES)
            if fds:
                self._received.append(fds)
        except BlockingIOError:
            return False
        except DescriptorsLostError as error:
            data = error.data
            self._received.append(None)
        except OSError as error:
            if error.errno in EXHAUSTED:  # the kernel has no memory for it just now: ask again
                return False
            data = b""
        if not data:
            self.stop_reading()
            return False
        try:
            for line in self._lines.feed(data):
                self._take(line)
        except wire.WireError as error:  # a line without an end: nothing behind it can be found
            self.stop_reading()
            self._on_garbage(str(error))
            return False
        return not self._closed

    def stop_reading(self) -> None:
        self._loop.remove_reader(self.sock)

    def close(self) -> None:
        """Try once to send what waits, then close."""
        if self._closed:
            return
        self._flush()
        self._closed = True
        self.stop_reading()
        self._loop.remove_writer(self.sock)
        self._again.stop()
        for outgoing in self._outgoing:
            close_all(outgoing.fds)
        for fds in self._received:
            close_all(fds or ())
        self._outgoing.clear()
        self._received.clear()
        self.sock.close()

    def _make_room(self, size: int) -> None:
        """Drop the oldest of those that may be lost, unless a part of it was sent."""
        while self._queued_bytes + size > MOST_QUEUED_BYTES:
            unwanted = next(
                (
                    each
                    for each in self._outgoing
                    if each.kind in messages.MAY_BE_LOST and not each.begun
                ),
                None,
            )
            if unwanted is None:
                return
            self._outgoing.remove(unwanted)
            self._queued_bytes -= len(unwanted.line)

    def _flush(self) -> None:
        while self._outgoing:
            first = self._outgoing[0]
            try:
                sent = send(self.sock, first.line, first.fds)
            except BlockingIOError:
                self._flush_when_read()
                return
            except OSError as error:
                if error.errno in NO_ROOM_TO_SEND:
                    self._loop.remove_writer(self.sock)
                    self._again.start(AGAIN_S)
                    return
                sent = len(first.line)  # the peer is gone; its pipe or its pidfd says so too
            close_all(first.fds)
            self._queued_bytes -= sent
            if sent < len(first.line):
                first.line, first.fds, first.begun = first.line[sent:], (), True
            else:
                self._outgoing.popleft()
        self._loop.remove_writer(self.sock)

    def _flush_when_read(self) -> None:
        try:
            self._loop.add_writer(self.sock, self._flush)
        except OSError:  # there is no room to watch it
            self._again.start(AGAIN_S)

    def _take(self, line: bytes) -> None:
        """Pass on one message with its descriptors; whatever is wrong stays with this one."""
        count = wire.count_descriptors(line)
        fds = self._received.popleft() if count and self._received else []
        try:
            message = wire.decode(line)
            if fds is None:
                self._on_lost(message)
                return
            if len(fds) != count:
                kind = type(message).__name__
                raise wire.WireError(f"{kind}: expected {count} descriptors, got {len(fds)}")
        except wire.WireError as error:
            close_all(fds or ())
            self._on_garbage(str(error))
            return
        try:
            self._on_message(message, fds)
        except Exception as error:  # noqa: BLE001 - a bug in one handler must not cost the others
            tell_unhandled(self._loop, message, error)


def tell_unhandled(
    loop: asyncio.AbstractEventLoop, message: messages.Down | messages.Up, error: Exception
) -> None:
    """The handler of a message failed, which is a bug."""
    loop.call_exception_handler(
        {"message": f"{type(message).__name__} was not handled", "exception": error}
    )
