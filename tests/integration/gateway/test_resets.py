"""Resets: in every state of a session, from either side, and what the session's end is called."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from gateway.core.endpoint import Endpoint
from gateway.core.messages import Settings
from gateway.sessions import leg as leg_module
from gateway.sessions import stalls
from gateway.tcp import is_waiting
from tests.clients import reset
from tests.plane import Backend, Plane, read_all
from tests.support import wait_until

SIDES = ["client", "endpoint"]
LOGGED = Settings(access_log=True)
FIN_WAIT2 = 5
"""net/tcp_states.h: our end of stream was acknowledged."""


@dataclass
class Ends:
    """Both ends of one session: ``one`` of the side in question, ``other`` of the other side."""

    plane: Plane
    one: socket.socket
    other: socket.socket

    def line(self) -> dict[str, object]:
        wait_until(lambda: self.plane.log.said("session"))
        return self.plane.log.said("session")[0]


@contextlib.contextmanager
def session(side: str, settings: Settings = LOGGED) -> Iterator[Ends]:
    with (
        Backend() as backend,
        Plane(backend.endpoint, settings=settings) as plane,
        plane.connect() as client,
        backend.accept() as server,
    ):
        plane.apply(backend.endpoint, settings=settings)
        client.sendall(b"?")
        assert server.recv(1) == b"?"
        one, other = (client, server) if side == "client" else (server, client)
        yield Ends(plane, one, other)


def is_reset(sock: socket.socket) -> bool:
    """Whether the kernel has seen a reset, without reading."""
    poll = select.poll()
    poll.register(sock, 0)
    events = poll.poll(0)
    return bool(events) and bool(events[0][1] & select.POLLERR)


def is_over(ends: Ends) -> bool:
    return ends.plane.counters.sessions == 0


def state_of(sock: socket.socket) -> int:
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]


def fill(sock: socket.socket, full: Callable[[], bool]) -> None:
    """Send until nothing moves any more: the other side does not read."""
    sock.setblocking(False)

    def stuck() -> bool:
        with contextlib.suppress(BlockingIOError):
            while True:
                sock.send(bytes(1 << 16))
        return full()

    wait_until(stuck)
    sock.settimeout(60)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("state", ["silent", "ended", "the other ended", "other does not read"])
def test_a_reset_reaches_a_silent_other_side(side: str, state: str) -> None:
    """Whatever the state, and although the other side does nothing: it learns of the reset."""
    with session(side) as ends:
        counted = ends.plane.counters.endpoints
        if state == "ended":
            ends.one.shutdown(socket.SHUT_WR)
            assert ends.other.recv(1) == b""
        elif state == "the other ended":
            ends.other.shutdown(socket.SHUT_WR)
            assert ends.one.recv(1) == b""
        elif state == "other does not read":
            seen = [-1]

            def full() -> bool:
                ends.plane.count()
                moved = sum(each.bytes_in + each.bytes_out for each in counted.values())
                seen.append(moved)
                return seen[-1] == seen[-2]

            fill(ends.one, full)
        reset(ends.one)
        wait_until(lambda: is_reset(ends.other), 10, "the other side was reset")
        wait_until(lambda: ends.plane.counters.sessions == 0)


@pytest.mark.parametrize("side", SIDES)
def test_an_end_and_a_reset_in_one_event_are_both_seen(side: str) -> None:
    """The worker looks late: it still passes on every byte, the end, and then the reset."""
    with session(side) as ends:
        hold, held = socket.socketpair()

        def wait() -> None:
            held.recv(1)

        ends.plane.loop.call_soon_threadsafe(wait)
        ends.one.sendall(b"last words")
        ends.one.shutdown(socket.SHUT_WR)
        reset(ends.one)
        hold.send(b"!")
        assert read_all(ends.other) == b"last words"
        wait_until(lambda: is_reset(ends.other), 10, "the other side was reset")
        line = ends.line()
        assert (line["end"], line["reset_by"]) == (side, side)
        hold.close()
        held.close()


def send_all(ends: Ends, kept: bool) -> int:
    """Send more than the other side takes, until the worker's kernel has it; how many bytes.

    ``kept``: so much that the session has to keep a part of it.
    """
    sent = 1  # of the question

    def taken() -> bool:
        return not is_waiting(ends.one.fileno())

    while True:
        ends.one.sendall(bytes(20_000))
        sent += 20_000
        wait_until(taken, 60, "the worker's kernel has it")
        ends.plane.count()
        moved = sum(
            each.bytes_in + each.bytes_out for each in ends.plane.counters.endpoints.values()
        )
        if (sent - moved >= 100_000) if kept else (sent >= 800_000):
            return sent - 1


def send_and_go(ends: Ends, kept: bool) -> int:
    """The same, then end the stream, and leave no connection behind.

    A kernel does this by itself about a minute after a close.
    """
    sent = send_all(ends, kept)
    ends.one.shutdown(socket.SHUT_WR)
    wait_until(lambda: state_of(ends.one) == FIN_WAIT2)
    reset(ends.one)
    return sent


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("kept", [False, True], ids=["in the kernel", "kept"])
def test_a_stream_that_ended_is_delivered_although_its_sender_is_gone(
    side: str, kept: bool
) -> None:
    """Who reads late gets every byte and the end, however long the sender's host remembers it."""
    with session(side) as ends:
        sent = send_and_go(ends, kept)
        if kept:
            wait_until(lambda: any(each.reset_by for each in ends.plane.sessions.all()))
        else:
            wait_until(lambda: ends.plane.counters.sessions == 0)
        assert len(read_all(ends.other)) == sent
        line = ends.line()
        assert (line["end"], line["reset_by"]) == (side, side)


@contextlib.contextmanager
def standing_still(plane: Plane) -> Iterator[None]:
    """The worker looks late: what happens meanwhile comes in one event."""
    hold, held = socket.socketpair()
    with hold, held:
        plane.loop.call_soon_threadsafe(lambda: held.recv(1))
        yield
        hold.send(b"!")
        plane.ask(lambda: None)


@pytest.mark.parametrize("side", SIDES)
def test_an_end_and_a_reset_in_one_event_cut_nothing_that_is_kept(side: str) -> None:
    """The other side takes no bytes just then, so reading on does not tell what came first."""
    with session(side) as ends:
        sent = send_all(ends, kept=True)
        with standing_still(ends.plane):
            ends.one.shutdown(socket.SHUT_WR)
            wait_until(lambda: state_of(ends.one) == FIN_WAIT2)
            reset(ends.one)
        assert len(read_all(ends.other)) == sent
        line = ends.line()
        assert (line["end"], line["reset_by"]) == (side, side)


@pytest.mark.parametrize("side", SIDES)
def test_a_reset_without_an_end_cuts_what_is_kept(side: str) -> None:
    """Nothing says that the stream was complete."""
    with session(side) as ends:
        send_all(ends, kept=True)
        with standing_still(ends.plane):
            reset(ends.one)
        with pytest.raises(ConnectionResetError):
            read_all(ends.other)
        line = ends.line()
        assert (line["end"], line["reset_by"]) == ("reset", side)


@pytest.mark.parametrize("timeout_s", [0.0, 30.0])
@pytest.mark.parametrize("first_words", [b"?", bytes(300_000)], ids=["a word", "many"])
@pytest.mark.parametrize("kept", [False, True], ids=["in the kernel", "kept"])
@pytest.mark.parametrize("side", SIDES)
def test_words_to_one_that_closed_cut_nothing_that_it_said(
    side: str, kept: bool, first_words: bytes, timeout_s: float
) -> None:
    """The other side goes on speaking before it has read everything; nobody hears it."""
    with session(side, replace(LOGGED, tcp_user_timeout_s=timeout_s)) as ends:
        sent = send_all(ends, kept)
        ends.one.shutdown(socket.SHUT_WR)
        wait_until(lambda: state_of(ends.one) == FIN_WAIT2)
        ends.one.close()
        ends.other.sendall(b"?")
        wait_until(
            lambda: any(each.reset_by for each in ends.plane.sessions.all()) or is_over(ends)
        )
        ends.other.sendall(bytes(300_000))  # more than a read or two of the worker
        assert len(read_all(ends.other)) == sent
        line = ends.line()
        assert (line["end"], line["reset_by"]) == (side, side)
        lingering = ends.plane.sessions.stalls._lingering
        wait_until(lambda: ends.plane.ask(lambda: len(lingering)) == 0)


def test_who_took_everything_and_closed_lingers_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the next look: hundreds of such in a second would take all the places there are."""
    monkeypatch.setattr(stalls, "step_s", lambda _: 60.0)
    path = f"unix:{tmp_path}/server"
    with (
        socket.socket(socket.AF_UNIX) as listener,
        Plane(Endpoint(path, (path,), 0), settings=LOGGED) as plane,
    ):
        listener.bind(f"{tmp_path}/server")
        listener.listen()
        lingering = plane.sessions.stalls._lingering
        for _ in range(20):
            with plane.connect() as client:
                client.sendall(b"?")
                server, _ = listener.accept()
                with server:
                    assert server.recv(1) == b"?"
                    server.sendall(b"answer")
                assert read_all(client) == b"answer"
        wait_until(lambda: plane.counters.sessions == 0)
        wait_until(lambda: plane.ask(lambda: len(lingering)) == 0)


def test_nobody_waits_for_good_for_one_that_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the sender is gone, and the other side only pauses for longer and longer."""
    monkeypatch.setattr(stalls, "LINGER_S", 0.2)
    with session("client", replace(LOGGED, tcp_user_timeout_s=0.0)) as ends:
        send_and_go(ends, kept=True)
        wait_until(lambda: ends.plane.counters.sessions == 0)
        assert is_reset(ends.other)
        line = ends.line()
        assert (line["end"], line["reset_by"]) == ("reset", "client")


@pytest.mark.parametrize("side", SIDES)
def test_a_reset_before_any_end_says_whose_it_was(side: str) -> None:
    """``reset_by`` is the side; the reason is ``reset``."""
    with session(side) as ends:
        reset(ends.one)
        with pytest.raises(ConnectionResetError):
            ends.other.recv(1)
        line = ends.line()
        assert (line["end"], line["reset_by"]) == ("reset", side)
        assert ends.plane.counters.ended == {"reset": 1}


@pytest.mark.parametrize("side", SIDES)
def test_a_reset_after_an_end_is_the_end_of_who_ended_first(side: str) -> None:
    """As with TLS: one side closes, the other's close_notify comes too late for it."""
    with session(side) as ends:
        ends.one.close()
        assert ends.other.recv(1) == b""
        ends.other.sendall(b"close_notify")
        line = ends.line()
        assert (line["end"], line["reset_by"]) == (side, side)
        assert ends.plane.counters.ended == {side: 1}


@pytest.mark.parametrize("side", SIDES)
def test_an_answer_cut_after_the_question_ended_names_who_cut_it(side: str) -> None:
    """One side ended in order, the other reset its answer: both stand in the log."""
    other_side = SIDES[1 - SIDES.index(side)]
    with session(side) as ends:
        ends.one.shutdown(socket.SHUT_WR)
        assert ends.other.recv(1) == b""
        reset(ends.other)
        with pytest.raises(ConnectionResetError):
            ends.one.recv(1)
        line = ends.line()
        assert (line["end"], line["reset_by"]) == (side, other_side)


def test_a_session_that_ends_in_order_names_no_reset() -> None:
    """The field is there only when there was a reset."""
    with session("client") as ends:
        ends.one.close()
        assert ends.other.recv(1) == b""
        ends.other.close()
        assert "reset_by" not in ends.line()


@pytest.mark.interpreted
@pytest.mark.parametrize("side", SIDES)
def test_an_error_that_ends_no_connection(side: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own host forbids to read on, as a security module may: both sides get a reset."""
    with session(side) as ends:

        def refuse(_fd: int, _size: int) -> bytes:
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(leg_module, "read", refuse)
        ends.one.sendall(b"!")
        for sock in (ends.one, ends.other):
            with pytest.raises(ConnectionResetError):
                sock.recv(1)


@pytest.mark.parametrize("last", [b"", b"!"])
@pytest.mark.parametrize("side", SIDES)
def test_an_end_that_cannot_be_passed_on(
    side: str, last: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for an end of stream that our own host forbids to send."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with session(side) as ends:
        monkeypatch.setattr(leg_module, "shut_write", refuse)
        monkeypatch.setattr(leg_module, "write_last", refuse)
        if last:
            ends.one.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
            ends.one.sendall(last)
        ends.one.shutdown(socket.SHUT_WR)
        for sock in (ends.one, ends.other):
            with pytest.raises(ConnectionResetError):
                read_all(sock)
        assert ends.line()["end"] == ("reset" if last else "error")
