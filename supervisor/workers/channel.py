"""The master's ends of one worker's channel: never blocks, whatever the worker does.

Down the pipe go the messages without descriptors; of those that a slow pipe keeps waiting, only the
newest of each kind is kept. Through the control socket goes everything up, and down the messages
that come with descriptors or concern them.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from functools import partial

from gateway.core import messages
from gateway.descriptors import close_all
from gateway.message_socket import AGAIN_S, MessageSocket
from gateway.timer import Timer
from supervisor.workers.reading_time import ReadingTime


class Channel:
    """Owns ``pipe_w`` and ``control``; both are closed by :meth:`close`.

    ``on_message(message, fds)`` owns the descriptors it is given.
    ``on_lost(reason)``: we had no room for the descriptors of a message, which was left out.
    ``on_broken(reason)`` is called if the worker breaks the protocol, and nothing more is read.
    ``inherited``: from a former master, which may have read half of the first line, and whose
    workers may be of another release: what they say is left out where it is not understood.
    ``reading``: all channels of the master share it.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        pipe_w: int,
        control: socket.socket,
        on_message: Callable[[messages.Up, list[int]], None],
        on_lost: Callable[[str], None],
        on_broken: Callable[[str], None],
        reading: ReadingTime,
        inherited: bool = False,
    ) -> None:
        self._loop = loop
        self.pipe_w = pipe_w
        self._on_message = on_message
        self._on_broken = on_broken
        # A former master may have written half of a line: an empty one ends it.
        self._writing = memoryview(b"\n" if inherited else b"")
        self._newest: dict[type, bytes] = {}
        self._again = Timer(loop, self._write)
        self._closed = self._broken = False
        self.inherited = inherited
        os.set_blocking(pipe_w, False)
        self._socket = MessageSocket(
            loop,
            control,
            on_message=self._check,
            on_lost=lambda message: on_lost(f"no descriptor is left for {type(message).__name__}"),
            on_garbage=self._on_garbage,
            may_read=partial(reading.is_left, self),
        )

    @property
    def control(self) -> socket.socket:
        return self._socket.sock

    def start_reading(self) -> None:
        """OSError: there is no room to watch the worker; it may be tried again."""
        self._socket.start_reading()

    def send(self, line: bytes, kind: type) -> None:
        """Write an encoded message to the pipe; of one kind only the newest waits.

        Encoded by the caller, because one snapshot goes to every worker.
        """
        if self._closed:
            return
        self._newest[kind] = line
        self._write()

    def pass_down(self, message: messages.Down, fds: Sequence[int] = ()) -> None:
        """Send a message with descriptors; they are duplicated now, so the caller may close.

        OSError: there is no descriptor for a duplicate, and nothing was sent.
        """
        self._socket.send(message, fds)

    def drain(self) -> None:
        """Deliver what a worker that exited had still said."""
        while not self._closed and not self._broken and self._socket.read():
            pass

    def close(self) -> None:
        """Close both ends and whatever descriptor was on its way."""
        if self._closed:
            return
        self._closed = True
        self._again.stop()
        self._loop.remove_writer(self.pipe_w)
        os.close(self.pipe_w)
        self._socket.close()

    def _write(self) -> None:
        while self._writing or self._newest:
            if not self._writing:
                # Whole lines only are replaced: the one that is half written goes first.
                kind = next(iter(self._newest))
                self._writing = memoryview(self._newest.pop(kind))
            try:
                sent = os.write(self.pipe_w, self._writing)
            except BlockingIOError:
                self._write_when_read()
                return
            except OSError:  # the worker is gone: its pidfd says so
                self._newest.clear()
                self._writing = memoryview(b"")
                break
            self._writing = self._writing[sent:]
        self._loop.remove_writer(self.pipe_w)

    def _write_when_read(self) -> None:
        try:
            self._loop.add_writer(self.pipe_w, self._write)
        except OSError:  # there is no room to watch it
            self._again.start(AGAIN_S)

    def _check(self, message: messages.Down | messages.Up, fds: list[int]) -> None:
        """Pass on what may come up, with the descriptors that belong to it."""
        if self._broken:
            close_all(fds)
            return
        match message:
            case messages.Bound(listeners):
                wanted = listeners
            case (
                messages.Ready()
                | messages.Failed()
                | messages.Missed()
                | messages.DialFailed()
                | messages.DialSucceeded()
                | messages.Report()
                | messages.SessionSlice()
                | messages.SessionDetails()
                | messages.Drained()
            ):
                wanted = 0
            case other:
                close_all(fds)
                self._on_garbage(f"{type(other).__name__} came up; it only goes down")
                return
        if len(fds) == wanted:
            self._on_message(message, fds)
        else:
            close_all(fds)
            kind = type(message).__name__
            self._on_garbage(f"{kind}: expected {wanted} descriptors, got {len(fds)}")

    def _on_garbage(self, error: str) -> None:
        if not self.inherited and not self._broken:
            self._broken = True
            self._socket.stop_reading()
            self._on_broken(error)
