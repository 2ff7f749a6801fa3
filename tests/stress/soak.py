"""Many sessions with random behaviour at once, each against its own model, from one thread.

Run in the network namespace where the gateway is. The first eight bytes of a client are its number,
by which the endpoint's side of the session is found.
"""

from __future__ import annotations

import contextlib
import heapq
import random
import socket
import time
from collections import Counter

from tests.live_session import LiveSession
from tests.session_model import SessionModel, Side

TINY = 4096
BUFFERS = [0, 0, 0, TINY, 65_536, 1 << 21]
MOST_INTO_TINY = 10_000
"""Bytes sent in a session with a tiny buffer: each few of them wait for a timer of the kernel."""

SIZES = [1, 100, 3000, 65_536, 200_000, 1_000_000]
STEP_S = 0.4
"""The mean time between two deeds of a session."""

FINISH_S = 60.0
"""How long a session may take from its last deed until both sides saw everything."""

ID_BYTES = 8


class SoakSession(LiveSession):
    """One of many: what it still wants to do, and when it must be over."""

    def __init__(self, number: int, client: socket.socket, chance: random.Random) -> None:
        super().__init__(client)
        self.number = number
        self.name = "{}:{}".format(*client.getsockname())
        """As it stands in the access log."""
        self.steps = chance.randrange(1, 25)
        self.most = chance.choice([10_000, 300_000, 5_000_000])
        self.pauses = chance.random() < 0.15
        """Now and then it does nothing for longer than the gateway's user timeout."""
        self.due_at = 0.0
        self.deadline = 0.0


class Soak:
    """``count`` sessions at a time through ``gateway`` to ``listener``, for as long as it runs."""

    def __init__(
        self, gateway: tuple[str, int], listener: socket.socket, count: int, seed: int
    ) -> None:
        self.chance = random.Random(seed)
        self.finished: Counter[str] = Counter()
        self._gateway = gateway
        self._listener = listener
        listener.setblocking(False)
        self._count = count
        self._sessions: dict[int, SoakSession] = {}
        self._agenda: list[tuple[float, int]] = []
        self._unknown: list[tuple[socket.socket, bytes]] = []
        self.started = 0

    def run(self, duration_s: float) -> None:
        """Start and drive sessions for so long, then let all end."""
        until = time.monotonic() + duration_s
        while self._sessions or time.monotonic() < until:
            now = time.monotonic()
            if now < until and len(self._sessions) < self._count:
                self._start(now)
            self._accept()
            if self._agenda and self._agenda[0][0] <= now:
                session = self._sessions[heapq.heappop(self._agenda)[1]]
                if now >= until:
                    session.steps = 0
                try:
                    self._act(session, now)
                except AssertionError as error:
                    raise AssertionError(f"{session.name}: {error}: {session.model}") from error
            elif len(self._sessions) >= self._count or now >= until:
                time.sleep(0.001)  # nothing is due: leave the processor to the gateway
        for sock, _ in self._unknown:
            sock.close()

    def _start(self, now: float) -> None:
        self.started += 1
        sock = socket.socket()
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            size = self.chance.choice(BUFFERS)
            if size:
                sock.setsockopt(socket.SOL_SOCKET, option, size)
        sock.connect(self._gateway)
        session = SoakSession(self.started, sock, self.chance)
        if size == TINY:
            session.most = MOST_INTO_TINY
        # The number stands outside of the model: the endpoint's side takes it before it begins.
        session.socks["client"].send(self.started.to_bytes(ID_BYTES))
        self._sessions[self.started] = session
        self._plan(session, now)

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                sock = self._listener.accept()[0]
                sock.setblocking(False)
                self._unknown.append((sock, b""))
        waiting, self._unknown = self._unknown, []
        for sock, got in waiting:
            try:
                data = sock.recv(ID_BYTES - len(got))
            except BlockingIOError:
                self._unknown.append((sock, got))
                continue
            except ConnectionResetError:
                sock.close()  # its client was reset before its number arrived
                continue
            if len(got := got + data) < ID_BYTES and data:
                self._unknown.append((sock, got))
                continue
            session = self._sessions.get(int.from_bytes(got)) if len(got) == ID_BYTES else None
            if session is None:
                assert data, "a stream ended within its number"
                sock.close()
                continue
            size = self.chance.choice(BUFFERS)
            if size == TINY:
                session.most = MOST_INTO_TINY
                size = size if session.model.client.sent < MOST_INTO_TINY else 0
            if size:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
            session.attach(session.model.endpoint, sock)

    def _plan(self, session: SoakSession, now: float) -> None:
        wait_s = self.chance.expovariate(1 / STEP_S)
        if session.pauses and self.chance.random() < 0.2:
            wait_s += 6.0
        session.due_at = now + wait_s
        heapq.heappush(self._agenda, (session.due_at, session.number))

    def _act(self, session: SoakSession, now: float) -> None:
        if session.steps > 0:
            session.steps -= 1
            self._do_something(session)
            self._plan(session, now)
            return
        if not session.deadline:
            session.deadline = now + FINISH_S
        # A session without an endpoint's side: it was reset before it got there, or is on its way.
        served = "endpoint" in session.socks or session.model.endpoint.gone
        if session.finish() and (served or session.model.client.gone):
            self._finish(session)
            return
        assert now < session.deadline, f"session {session.number} is stuck: {session.model}"
        heapq.heappush(self._agenda, (now + 0.1, session.number))

    def _do_something(self, session: SoakSession) -> None:
        model, chance = session.model, self.chance
        side = chance.choice([model.client, model.endpoint])
        if not session.has(side):
            return
        deed = chance.choices(
            ["send", "urgent", "read", "read all", "end", "close", "reset"],
            [30, 3, 15, 30, 3, 1, 1],
        )[0]  # fmt: skip
        may_send = not side.ended and not side.saw_reset and side.sent < session.most
        match deed:
            case "send" if may_send:
                session.send(side, min(chance.choice(SIZES), session.most - side.sent))
            case "urgent" if may_send:
                session.send(side, 1, urgent=True)
            case "read":
                session.read(side, chance.choice(SIZES))
            case "read all":
                self._read_all(session, side)
            case "end" if not side.ended:
                session.end(side)
            case "close":
                session.close_side(side)
            case "reset":
                session.reset(side)

    def _read_all(self, session: SoakSession, side: Side) -> None:
        while session.read(side):
            pass

    def _finish(self, session: SoakSession) -> None:
        model: SessionModel = session.model
        if model.orderly:
            for side in (model.client, model.endpoint):
                assert side.received == model.other(side).sent
        self.finished["orderly" if model.orderly else "cut"] += 1
        self.finished["bytes"] += model.client.received + model.endpoint.received
        session.close()
        del self._sessions[session.number]
