"""A worker's data plane in a thread of the test, and peers that do one thing each."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Collection, Sequence
from typing import Any, Self, TypeVar

import uvloop

from gateway.core.address import HostPort
from gateway.core.counters import DialResult, PauseReason, WorkerCounters
from gateway.core.descriptor_budget import DescriptorBudget
from gateway.core.endpoint import Endpoint, EndpointState
from gateway.core.messages import Settings, Snapshot
from gateway.ingress.acceptor import Acceptor
from gateway.ingress.listener import open_listener, tune_listener
from gateway.ingress.quota import Quota
from gateway.poller import Poller
from gateway.scoreboard import Scoreboard
from gateway.sessions.register import Sessions
from tests.logbook import Logbook
from tests.support import free_port

T = TypeVar("T")


class Turns:
    """A table that serves its endpoints in turn, suspects last."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self.endpoints = tuple(endpoints)
        self.suspects: set[str] = set()
        self.started: dict[str, int] = {}
        self._turn = 0

    def pick(self, tried: Collection[str] = ()) -> Endpoint | None:
        count = len(self.endpoints)
        order = [self.endpoints[(self._turn + i) % count] for i in range(count)]
        self._turn += 1
        usable = [e for e in order if e.name not in tried and e.state is not EndpointState.REMOVED]
        usable.sort(key=lambda e: e.name in self.suspects)
        return usable[0] if usable else None

    def suspect(self, name: str) -> None:
        self.suspects.add(name)

    def is_trusted(self, name: str, address: str = "") -> bool:
        active = [e.name for e in self.endpoints if e.state is EndpointState.ACTIVE]
        return name in active and name not in self.suspects

    def trust(self, name: str) -> None:
        self.suspects.discard(name)

    def session_started(self, name: str, address: str = "") -> None:
        self.started[name] = self.started.get(name, 0) + 1

    def address_known(self, name: str, address: str) -> None:
        pass

    def session_ended(self, name: str, address: str = "") -> None:
        self.started[name] -= 1

    def first_turn(self, name: str) -> int:
        return 0

    def address_loads(self, endpoint: Endpoint) -> None:
        return None


def endpoint_of(port: int, *addresses: str, host: str = "") -> Endpoint:
    addresses = addresses or ("127.0.0.1",)
    return Endpoint(str(HostPort(host or addresses[0], port)), addresses, port)


class Plane:
    """Listener, acceptor, sessions and table of one worker; a context manager.

    Everything of the plane happens in its thread: use :meth:`ask` to call into it.
    """

    def __init__(
        self,
        *endpoints: Endpoint,
        settings: Settings | None = None,
        limit: int | None = None,
        listen: str = "127.0.0.1",
    ) -> None:
        self.table = Turns(endpoints)
        self.settings = settings or Settings()
        self.limit = limit
        self.address = HostPort(listen, free_port(listen))
        self.log = Logbook()
        self.counters = WorkerCounters()
        self.budget = DescriptorBudget(self.counters)
        self.dial_failures: list[tuple[str, str, DialResult, str]] = []
        self.dial_successes: list[str] = []
        self.loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="plane", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.ask(self._open)
        return self

    def __exit__(self, *_: object) -> None:
        self.ask(self._close)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(60)
        self.loop.close()

    def _open(self) -> None:
        self.poller = Poller(self.loop)
        self.sessions = Sessions(
            self.loop,
            self.poller,
            self.table,
            self.counters,
            self.budget,
            self.log,
            settings=self.settings,
            on_dial_failed=lambda *failure: self.dial_failures.append(failure),
            on_dial_succeeded=lambda name, _: self.dial_successes.append(name),
            on_end=self._ended,
        )
        self.sessions.apply(Snapshot(1, tuple(self.table.endpoints), self.settings))
        self.scoreboard = Scoreboard()
        self.row = self.scoreboard.open_row(0, 1)
        self.quota = Quota(
            self.scoreboard,
            row=self.row,
            counters=self.counters,
            budget=self.budget,
            serve=self._serve,
            closing=self.poller.closing,
            reclaim=self.sessions.relay.pipes.close_spare,
        )
        self.pauses: list[PauseReason] = []
        self.acceptor = Acceptor(
            self.loop,
            self.poller,
            self._serve,
            quota=self.quota,
            on_pause=lambda reason, _: self.pauses.append(reason),
            on_resume=lambda: None,
            log=self.log,
        )
        self.on_session_end: Callable[[], None] = self.acceptor.recheck
        self.quota.max_sessions = self.limit or 0
        self.listener = open_listener(self.address, exclusive=True)
        tune_listener(self.listener, self.settings)
        self.acceptor.add(self.listener)

    def _ended(self) -> None:
        self._publish()
        self.on_session_end()

    def _serve(self, fd: int, peer: Any) -> None:
        self.sessions.serve(fd, peer)
        self._publish()

    def _publish(self) -> None:
        self.scoreboard.set_sessions(self.row, self.counters.sessions)

    def _close(self) -> None:
        self.acceptor.remove(self.listener)
        self.sessions.close()
        self.poller.shut()
        self.listener.close()
        self.scoreboard.close()

    def ask(self, call: Callable[[], T]) -> T:
        """Run ``call`` in the plane's thread."""

        async def run() -> T:
            return call()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(30)

    def count(self) -> WorkerCounters:
        """The counters, brought up to date."""
        self.ask(self.sessions.count_bytes)
        return self.counters

    def apply(self, *endpoints: Endpoint, settings: Settings | None = None) -> None:
        self.table.endpoints = endpoints
        snapshot = Snapshot(2, endpoints, settings or self.settings)
        self.ask(lambda: self.sessions.apply(snapshot))

    def connect(self, timeout_s: float = 60.0) -> socket.socket:
        return socket.create_connection((self.address.host, self.address.port), timeout=timeout_s)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


class Backend:
    """A listening endpoint; the test accepts by handle and plays the server itself."""

    def __init__(self, host: str = "127.0.0.1", backlog: int = 128) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        self.sock.bind((host, 0))
        self.sock.listen(backlog)
        self.sock.settimeout(60)
        self.endpoint = endpoint_of(self.sock.getsockname()[1], host)

    def accept(self) -> socket.socket:
        sock, _ = self.sock.accept()
        sock.settimeout(60)
        return sock

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()


class BlackHole:
    """An endpoint whose queue is full: the kernel drops every further SYN."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.sock = socket.socket()
        # None that the kernel gives to whoever connects: some tests need it on two addresses.
        self.sock.bind((host, port or free_port()))
        self.sock.listen(0)
        self.endpoint = endpoint_of(self.sock.getsockname()[1], host)
        self.fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(self.sock.getsockname())
            self.fillers.append(filler)

    def open(self) -> None:
        """Let everybody in from now on: the next SYN is answered."""
        self.sock.listen(64)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for sock in (self.sock, *self.fillers):
            sock.close()


def closed_endpoint() -> Endpoint:
    """An endpoint that refuses."""
    return endpoint_of(free_port())


def read_all(sock: socket.socket) -> bytes:
    parts = []
    while part := sock.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)
