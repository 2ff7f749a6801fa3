"""A session on real sockets: both sides do what they are told, the model hears what they see."""

from __future__ import annotations

import contextlib
import select
import socket
import struct

from tests.session_model import PERIOD, SessionModel, Side, piece

READ_BYTES = 1 << 17
RESETS = (ConnectionResetError, BrokenPipeError)


class LiveSession:
    """Owns the sockets of both sides until :meth:`close`; ``server`` comes when it is accepted."""

    def __init__(self, client: socket.socket) -> None:
        self.model = SessionModel()
        self.socks: dict[str, socket.socket] = {}
        self.attach(self.model.client, client)

    def attach(self, side: Side, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        self.socks[side.name] = sock

    def has(self, side: Side) -> bool:
        return side.name in self.socks and not side.gone

    def send(self, side: Side, size: int, *, urgent: bool = False) -> int:
        """Send as much of ``size`` bytes as the kernel takes now; the last one urgent if asked."""
        data = piece(side.name, side.sent, min(size, PERIOD))
        try:
            sent = self.socks[side.name].send(data, socket.MSG_OOB if urgent else 0)
        except BlockingIOError:
            return 0
        except RESETS:
            self.model.sees_reset(side)
            return 0
        side.sent += sent
        return sent

    def end(self, side: Side) -> None:
        """Half-close."""
        side.ended = True
        with contextlib.suppress(OSError):  # it was reset
            self.socks[side.name].shutdown(socket.SHUT_WR)

    def close_side(self, side: Side) -> None:
        """Close in order, as programs do: also with bytes that were not read."""
        side.ended = side.closed = True
        self.socks.pop(side.name).close()

    def reset(self, side: Side) -> None:
        side.was_reset = True
        sock = self.socks.pop(side.name)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()

    def read(self, side: Side, size: int = READ_BYTES) -> bool:
        """Read once; whether anything was seen."""
        if side.done:
            return False
        try:
            data = self.socks[side.name].recv(size)
        except BlockingIOError:
            return False
        except RESETS:
            self.model.sees_reset(side)
            return True
        if data:
            self.model.receives(side, data)
        else:
            self.model.sees_end(side)
        return True

    def look(self, side: Side) -> None:
        """See a reset that came after the end of the stream."""
        if side.name in self.socks and not side.saw_reset:
            poll = select.poll()
            poll.register(self.socks[side.name], 0)
            if any(mask & select.POLLERR for _, mask in poll.poll(0)):
                self.model.sees_reset(side)

    def finish(self) -> bool:
        """One step towards the end: both sides end their streams and read all; True when done.

        Whoever's other side reset its connection learns of it before, without doing anything.
        """
        model = self.model
        if not all(self._knows_reset(side) for side in (model.client, model.endpoint)):
            return False
        for side in (model.client, model.endpoint):
            if self.has(side):
                if not side.ended:
                    self.end(side)
                while self.read(side):
                    pass
                self.look(side)
        return all(
            self._has_seen_all(side) for side in (model.client, model.endpoint) if self.has(side)
        )

    def _knows_reset(self, side: Side) -> bool:
        """Whether ``side`` has seen the other's reset, if that came before the end of its stream.

        A reset behind an end leaves the stream alone where it is not delivered yet.
        """
        other = self.model.other(side)
        if not self.has(side) or not other.was_reset or other.ended:
            return True
        while self.read(side):
            pass
        self.look(side)
        return side.saw_reset

    def _has_seen_all(self, side: Side) -> bool:
        """Whether ``side`` has seen all that it will: the end, and the reset if there was one."""
        other = self.model.other(side)
        if side.saw_reset:
            return True
        # Whoever reset after both streams had ended, reset nothing: the session was over.
        return side.saw_end and not (other.was_reset and not other.ended)

    def close(self) -> None:
        for sock in self.socks.values():
            sock.close()
        self.socks.clear()
