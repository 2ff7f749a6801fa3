"""What all dials of a worker share: how to connect, and the tick that looks after them.

Most connects to this host or next watcher are over at once and need no more than this; what takes
longer, or fails, becomes a :class:`~gateway.sessions.dial.Dial`.
"""

from __future__ import annotations

import _socket
import asyncio
import errno
import os
import socket
import time
from collections.abc import Callable

from gateway.core.counters import End, EndpointCounters
from gateway.core.endpoint import Endpoint
from gateway.core.messages import Settings
from gateway.poller import Poller
from gateway.sessions.dial import Caller, Dial, OnDialFailed, Table
from gateway.tcp import ephemeral_ports, met_itself

# Plain integers: every look into the socket module's enums costs, and a dial makes eight.
_STREAM = int(socket.SOCK_STREAM) | int(socket.SOCK_NONBLOCK)
_INET, _INET6 = int(socket.AF_INET), int(socket.AF_INET6)
_TCP, _NODELAY, _QUICKACK = (
    int(socket.IPPROTO_TCP), int(socket.TCP_NODELAY), int(socket.TCP_QUICKACK)
)  # fmt: skip

TICK_S = 0.02
"""How often unfinished dials are looked at; none unfinished, no tick."""


class Dialer:
    """What all dials of a worker share, and the tick that watches the unfinished ones."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        poller: Poller,
        table: Table,
        *,
        settings: Settings,
        count: Callable[[str], EndpointCounters],
        on_failed: OnDialFailed,
    ) -> None:
        self.poller = poller
        self.table = table
        self.settings = settings
        self.count = count
        self.on_failed = on_failed
        self.ephemeral = ephemeral_ports()
        self.unfinished: dict[Dial, None] = {}
        self._loop = loop
        self._ticking = False

    def call(self, caller: Caller, early: bytes | None, now: float) -> Dial | None:
        """Dial; None if it is over already, one way or the other. ``early``: see :meth:`reach`.

        With early bytes and an endpoint on this host or next watcher it usually is: no event, no
        dial object.
        """
        endpoint = self.table.pick(())
        if endpoint is None:
            caller.gave_up(End.NO_ENDPOINT)
            return None
        code, sock, sent = self.reach(endpoint, 0, early)
        if sent >= 0 and sock is not None:
            caller.connected(sock.detach(), endpoint, 0, sent, now)
            return None
        dial = Dial(self, caller, now)
        try:
            return dial if dial.start(endpoint, code, sock) else None
        except Exception:
            dial.cancel()  # the caller never heard of it
            raise

    def reach(
        self, endpoint: Endpoint, address: int, early: bytes | None
    ) -> tuple[int, _socket.socket | None, int]:
        """Connect to one address: an errno, or 0 and the socket.

        ``early`` is what the client said already. If it is not None, its bytes are written at
        once, and how many went through comes third; -1 if the connect is still under way.
        """
        host = endpoint.addresses[address]
        port = endpoint.port
        family = _INET6 if ":" in host else _INET
        try:
            sock = _socket.socket(family, _STREAM, _TCP)
        except OSError as error:
            return error.errno or errno.EMFILE, None, -1
        sock.setsockopt(_TCP, _NODELAY, 1)
        if early is not None:
            # The handshake's last ACK travels with the early bytes: one packet less.
            sock.setsockopt(_TCP, _QUICKACK, 0)
        code = sock.connect_ex((host, port))
        if code and code != errno.EINPROGRESS:
            sock.close()
            return code, None, -1
        if early is None:
            return 0, sock, -1
        if port in self.ephemeral and met_itself(sock, port):
            sock.close()
            return errno.ECONNREFUSED, None, -1
        try:
            sent = os.write(sock.fileno(), early)
            # Only that one: an endpoint that answers in two small parts waits for the next ACK.
            sock.setsockopt(_TCP, _QUICKACK, 1)
        except BlockingIOError:
            sock.setsockopt(_TCP, _QUICKACK, 1)
            return 0, sock, -1  # as over any real network: it takes a while
        except OSError as error:
            sock.close()
            return error.errno or errno.ECONNRESET, None, -1
        return 0, sock, sent

    def watch(self, dial: Dial) -> None:
        self.unfinished[dial] = None
        if not self._ticking:
            self._ticking = True
            self._loop.call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        self._ticking = False
        now = time.monotonic()
        for dial in tuple(self.unfinished):
            try:
                dial.check(now)
            except Exception as error:  # noqa: BLE001 - a session's boundary
                dial.caller.crashed(error)
        if self.unfinished and not self._ticking:
            self._ticking = True
            self._loop.call_later(TICK_S, self._tick)
