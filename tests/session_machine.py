"""Random sequences of what two sides and the gateway may do, each checked against the model."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Self

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from gateway.core.counters import End
from gateway.core.endpoint import Endpoint
from gateway.core.messages import Settings
from tests.live_session import LiveSession
from tests.plane import Backend, BlackHole, Plane, closed_endpoint, descriptors
from tests.session_model import Side
from tests.support import wait_until

DEADLINE_S = 20.0
SETTINGS = Settings(
    tcp_user_timeout_s=1.0, dial_hedge_s=0.02, dial_timeout_s=0.3, access_log=True
)  # fmt: skip
TINY = 4096
BUFFERS = st.sampled_from([0, TINY, 1 << 20])
MOST_INTO_TINY = 20_000
"""Bytes sent to a receiver with a tiny buffer: each few of them wait for a timer of the kernel."""

SIZES = st.one_of(st.integers(1, 2000), st.integers(1, 200_000), st.just(900_000))
SIDES = st.sampled_from(["client", "endpoint"])
WAYS = ["direct", "direct", "direct", "refused first", "silent first", "nobody"]


class Stage:
    """One worker, and the endpoints that sessions may meet; shared by all sequences."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        enter = self._stack.enter_context
        self.backend = enter(Backend())
        self.hole = enter(BlackHole())
        self.refuses = closed_endpoint()
        self.plane = enter(Plane(self.backend.endpoint, settings=SETTINGS))
        self.sequences = 0
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def show(self, *endpoints: Endpoint) -> None:
        """A snapshot with these endpoints, dialed in this order."""
        table = self.plane.table
        table.suspects.clear()
        table._turn = 0
        self.plane.apply(*endpoints)

    def accepted(self) -> Iterator[socket.socket]:
        self.backend.sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                yield self.backend.sock.accept()[0]

    def set_buffers(self, sock: socket.socket, send: int, receive: int) -> None:
        """Sizes in bytes, 0 for the kernel's own."""
        for option, size in ((socket.SO_SNDBUF, send), (socket.SO_RCVBUF, receive)):
            if size:
                sock.setsockopt(socket.SOL_SOCKET, option, size)


class SessionMachine(RuleBasedStateMachine):
    """One session from its connect to its end."""

    stage: Stage

    def __init__(self) -> None:
        super().__init__()
        self.stage.sequences += 1

    @initialize(
        way=st.sampled_from(WAYS),
        early=st.sampled_from([0, 0, 1, 100, 65_536, 150_000]),
        then=st.sampled_from(["nothing", "nothing", "nothing", "end", "close", "reset"]),
        buffers=st.tuples(BUFFERS, BUFFERS, BUFFERS, BUFFERS),
        towards_client=st.sampled_from([8192, 1 << 20]),
    )
    def connect(
        self,
        way: str,
        early: int,
        then: str,
        buffers: tuple[int, int, int, int],
        towards_client: int,
    ) -> None:
        """``buffers``: the client's to send and receive, the endpoint's to send and receive."""
        stage, plane = self.stage, self.stage.plane
        stage.set_buffers(plane.listener, towards_client, 0)  # accepted sockets inherit it
        for stray in stage.accepted():
            stray.close()
        plane.log.lines.clear()
        self.descriptors = descriptors()
        backend, hole = stage.backend.endpoint, stage.hole.endpoint
        match way:
            case "direct":
                stage.show(backend)
            case "refused first":
                stage.show(stage.refuses, backend)
            case "silent first":
                stage.show(hole, backend)
            case _:
                stage.show(stage.refuses)
        sock = socket.socket()
        stage.set_buffers(sock, *buffers[:2])
        sock.connect((plane.address.host, plane.address.port))
        self.session = session = LiveSession(sock)
        self.model = model = session.model
        self.tiny = {"client": buffers[3] == TINY, "endpoint": buffers[1] == TINY}
        model.given_up = way == "nobody"
        if self.tiny["client"]:
            # What comes before the endpoint's buffer is made small has to fit into it. Else the
            # kernel (6.18) drops acknowledgements too, and nothing moves either way until the
            # endpoint reads; two sockets without a gateway do the same.
            early = min(early, TINY)
        if early:
            session.send(model.client, early)
        if then == "end":
            session.end(model.client)
        elif then == "close":
            session.close_side(model.client)
        elif then == "reset":
            session.reset(model.client)
        self._wait(self._served, "the session is served")
        if server := session.socks.get("endpoint"):
            stage.set_buffers(server, *buffers[2:])

    def _served(self) -> bool:
        for sock in self.stage.accepted():
            self.session.attach(self.model.endpoint, sock)
            return True
        gone = self.model.given_up or self.model.client.gone
        return gone and bool(self.stage.plane.log.said("session"))

    def _wait(self, predicate: Callable[[], bool], what: str) -> None:
        try:
            wait_until(predicate, DEADLINE_S)
        except AssertionError as error:
            raise AssertionError(f"not {what}: {self.model}") from error

    def _side(self, name: str) -> Side:
        return self.model.client if name == "client" else self.model.endpoint

    @rule(name=SIDES, size=SIZES)
    def send(self, name: str, size: int) -> None:
        side = self._side(name)
        if self.tiny[name]:
            size = min(size, MOST_INTO_TINY - side.sent)
        if size > 0 and self.session.has(side) and not side.ended and not side.saw_reset:
            self.session.send(side, size)

    @rule(name=SIDES, size=st.integers(500, 60_000), times=st.sampled_from([2, 10, 100]))
    def send_by_and_by(self, name: str, size: int, times: int) -> None:
        """Each piece is relayed by itself: no bulk, and the buffers fill up if nobody reads."""
        for _ in range(times):
            self.send(name, size)
            self.stage.plane.ask(lambda: None)

    @rule(name=SIDES)
    def send_urgent(self, name: str) -> None:
        side = self._side(name)
        if self.session.has(side) and not side.ended and not side.saw_reset:
            self.session.send(side, 1, urgent=True)

    @rule(name=SIDES, size=SIZES)
    def read(self, name: str, size: int) -> None:
        side = self._side(name)
        if self.session.has(side):
            self.session.read(side, size)

    @rule(name=SIDES)
    def read_what_was_sent(self, name: str) -> None:
        """Nothing may stay on the way while nobody does anything."""
        side = self._side(name)
        if self.session.has(side):
            self._wait(lambda: self._has_all(side), f"{name} has everything")

    def _has_all(self, side: Side) -> bool:
        sender = self.model.other(side)
        while self.session.read(side):
            pass
        return side.done or self.model.given_up or (
            side.received == sender.sent and not sender.ended
        )  # fmt: skip

    @rule(name=SIDES, really=st.integers(0, 3))
    def end(self, name: str, really: int) -> None:
        side = self._side(name)
        if not really and self.session.has(side) and not side.ended:
            self.session.end(side)

    @rule(
        name=SIDES,
        how=st.sampled_from(["close", "reset", "end and reset"]),
        really=st.integers(0, 5),
    )
    def leave(self, name: str, how: str, really: int) -> None:
        side = self._side(name)
        if really or not self.session.has(side):
            return
        if how == "close":
            self.session.close_side(side)
            return
        if how == "end and reset" and not side.ended:
            self.session.end(side)
            self.stage.plane.ask(lambda: None)
        self.session.reset(side)

    @rule()
    def report(self) -> None:
        """The counters are read, and the next bytes take the path that marks them."""
        self.stage.plane.count()

    @precondition(lambda self: not self.model.given_up)
    @rule(how=st.sampled_from(["drained", "removed"]), really=st.integers(0, 5))
    def give_up(self, how: str, really: int) -> None:
        if really:
            return
        self.model.given_up = True
        if how == "drained":
            self.stage.plane.ask(lambda: self.stage.plane.sessions.cut_all(End.DRAINED))
        else:
            self.stage.show(self.stage.refuses)

    def teardown(self) -> None:
        if not hasattr(self, "session"):
            return
        session, model, plane = self.session, self.model, self.stage.plane
        try:
            self._wait(session.finish, "both sides saw all")
            self._wait(lambda: plane.counters.sessions == 0, "the session is over")
            if model.orderly:
                for side in (model.client, model.endpoint):
                    assert side.received == model.other(side).sent
            (line,) = plane.log.said("session")
            assert line["end"] in model.allowed_ends(), (line, model)
            assert line.get("reset_by") in model.allowed_reset_by(), (line, model)
            if model.orderly:
                assert (line["bytes_in"], line["bytes_out"]) == (
                    model.client.sent, model.endpoint.sent
                )  # fmt: skip
        finally:
            session.close()
            plane.ask(lambda: plane.sessions.cut_all(End.DRAINED))
        before = self.descriptors
        wait_until(lambda: descriptors() <= before + 2 * 16, DEADLINE_S, "spare pipes at most")


def machine_on(stage: Stage) -> type[SessionMachine]:
    """The machine for sequences that share ``stage``."""
    return type("SessionMachineOnStage", (SessionMachine,), {"stage": stage})
