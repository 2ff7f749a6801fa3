"""Accepted sockets go to the least loaded worker, and none is lost on the way."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator

import pytest

from gateway.ingress.handoff import CHURN_LIMIT_PER_S, Handoff
from gateway.scoreboard import STALE_NS, Scoreboard
from tests.support import no_descriptors_left


class Pair:
    """Two slots with inboxes and a scoreboard, as the master would make them."""

    def __init__(self) -> None:
        self.scoreboard = Scoreboard()
        self.ends = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]
        self.handoffs = [
            Handoff(
                self.scoreboard,
                row=self.scoreboard.open_row(slot, 1),
                inbox=self.ends[slot][0],
                peers={1 - slot: self.ends[1 - slot][1]},
            )
            for slot in range(2)
        ]
        for slot in range(2):
            self.scoreboard.enter(slot, os.getpid())
            self.scoreboard.set_accepting(slot, True)
            self.scoreboard.beat(slot, time.monotonic_ns())

    def close(self) -> None:
        for ends in self.ends:
            for end in ends:
                end.close()
        self.scoreboard.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


def test_a_client_goes_to_the_worker_with_fewer_sessions(pair: Pair) -> None:
    """One session more than the other is reason enough while sessions are few."""
    pair.scoreboard.set_sessions(0, 1)
    assert pair.handoffs[0].receiver(1, time.monotonic_ns()) == 1
    assert pair.handoffs[1].receiver(0, time.monotonic_ns()) is None


def test_sockets_in_flight_count(pair: Pair) -> None:
    """A burst is not sent to one worker because its count has not moved yet."""
    pair.scoreboard.set_sessions(0, 1)
    ours, theirs = socket.socketpair()
    with theirs:
        assert pair.handoffs[0].send(ours.detach(), 1)
        assert pair.handoffs[0].in_flight() == pair.handoffs[1].in_flight() == 1
        assert pair.handoffs[0].receiver(1, time.monotonic_ns()) is None
        [fd], _ = pair.handoffs[1].receive(9)
        os.close(fd)
        assert pair.handoffs[0].in_flight() == pair.handoffs[1].in_flight() == 0
        assert pair.handoffs[0].receiver(1, time.monotonic_ns()) == 1


def test_a_worker_hears_that_there_are_clients_of_unix_sockets(pair: Pair) -> None:
    """One that is older than the UNIX listener learns it from the first client handed to it."""
    for unix in (False, True):
        ours, theirs = socket.socketpair()
        with theirs:
            assert pair.handoffs[0].send(ours.detach(), 1, unix=unix)
            [fd], offered = pair.handoffs[1].receive(9)
            os.close(fd)
        assert not offered
        assert pair.handoffs[1].unix_clients == unix


def test_sockets_in_flight_are_counted_without_a_descriptor(pair: Pair) -> None:
    """A client that has just come may have taken the last one."""
    ours, theirs = socket.socketpair()
    with theirs:
        assert pair.handoffs[0].send(ours.detach(), 1)
        with no_descriptors_left():
            assert pair.handoffs[0].in_flight() == 1


def test_what_waits_in_our_own_inbox_is_ours(pair: Pair) -> None:
    """In a burst a worker that was given clients passes its own on before it has served them."""
    ours, theirs = socket.socketpair()
    with theirs:
        assert pair.handoffs[0].send(ours.detach(), 1)
        assert pair.handoffs[1].receiver(0, time.monotonic_ns()) == 0
        [fd], _ = pair.handoffs[1].receive(999)
        os.close(fd)


def test_the_socket_lives_on_in_the_inbox(pair: Pair) -> None:
    """What was handed over works, though the sender closed its descriptor."""
    ours, theirs = socket.socketpair()
    with theirs:
        assert pair.handoffs[0].send(ours.detach(), 1)
        [fd], _ = pair.handoffs[1].receive(999)
        with socket.socket(fileno=fd) as taken:
            taken.send(b"hello")
            assert theirs.recv(9) == b"hello"
    assert pair.handoffs[1].receive(999) == ([], False)


@pytest.mark.parametrize("why", ["not accepting", "stale", "churn", "many"])
def test_reasons_to_keep_a_client(pair: Pair, why: str) -> None:
    """Nothing goes to a worker that may hang or leaves, nor where it would not pay."""
    own = 3
    match why:
        case "not accepting":
            pair.scoreboard.set_accepting(1, False)
        case "stale":
            pair.scoreboard.beat(1, time.monotonic_ns() - 2 * STALE_NS)
        case "churn":
            for _ in range(50):
                pair.handoffs[0].tick(int(CHURN_LIMIT_PER_S), 0.1)
        case "many":
            own = 160
            pair.scoreboard.set_sessions(1, 151)
    pair.scoreboard.set_sessions(0, own)
    assert pair.handoffs[0].receiver(own, time.monotonic_ns()) is None


def test_a_full_inbox_refuses(pair: Pair) -> None:
    """A receiver that does not read costs nobody a client: the sender keeps what does not fit."""
    spare, other = socket.socketpair()
    with spare, other:
        while pair.handoffs[0].send(os.dup(spare.fileno()), 1):
            pass
        sent = pair.handoffs[0].in_flight()
        taken, _ = pair.handoffs[1].receive(999)
        assert len(taken) == sent > 0
        for fd in taken:
            os.close(fd)


def test_a_slot_that_came_later_is_a_peer_too(pair: Pair) -> None:
    """After one worker more was started, its inbox gets clients."""
    inbox, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with inbox:
        assert pair.scoreboard.open_row(2, 1) == 2
        assert pair.handoffs[0].add_peer(2, end)
        pair.scoreboard.set_accepting(2, True)
        pair.scoreboard.beat(2, time.monotonic_ns())
        pair.scoreboard.set_sessions(0, 5)
        pair.scoreboard.set_sessions(1, 5)
        assert pair.handoffs[0].receiver(5, time.monotonic_ns()) == 2
        replacement = end.dup()
        assert not pair.handoffs[0].add_peer(2, replacement)
        assert end.fileno() == -1
        replacement.close()


def test_no_more_is_received_than_there_is_room_for(pair: Pair) -> None:
    """The others wait in the inbox, as they would in the kernel's queue."""
    spare, other = socket.socketpair()
    with spare, other:
        for _ in range(3):
            assert pair.handoffs[0].send(os.dup(spare.fileno()), 1)
    taken, _ = pair.handoffs[1].receive(2)
    assert len(taken) == 2
    assert pair.handoffs[1].receive(0) == ([], False)
    rest, _ = pair.handoffs[1].receive(2)
    assert len(rest) == 1
    for fd in (*taken, *rest):
        os.close(fd)


def test_without_a_free_number_clients_stay_in_the_inbox(pair: Pair) -> None:
    """The kernel would close what it has no number for; so it is asked for none."""
    ours, theirs = socket.socketpair()
    with theirs:
        assert pair.handoffs[0].send(ours.detach(), 1)
        with no_descriptors_left():
            assert pair.handoffs[1].receive(999) == ([], False)
        assert pair.handoffs[1].short
        assert pair.handoffs[1].lost == 0
        assert pair.handoffs[0].in_flight() == 1
        [fd], _ = pair.handoffs[1].receive(999)
        assert not pair.handoffs[1].short
        with socket.socket(fileno=fd) as taken:
            taken.send(b"hello")
            assert theirs.recv(9) == b"hello"


def test_a_sender_that_died_leaves_no_count_behind(pair: Pair) -> None:
    """What is in flight is what waits in the inbox, whoever put it there and however it ended."""
    spare, other = socket.socketpair()
    with spare, other:
        pid = os.fork()
        if pid == 0:
            pair.handoffs[0].send(os.dup(spare.fileno()), 1)
            os._exit(0)
        os.waitpid(pid, 0)
    assert pair.handoffs[0].in_flight() == 1
    [fd], _ = pair.handoffs[1].receive(9)
    os.close(fd)
    assert pair.handoffs[0].in_flight() == 0


def test_a_place_is_offered_without_a_socket(pair: Pair) -> None:
    """The other slot learns that a place is free; nothing counts as in flight for that."""
    assert pair.handoffs[0].offer_place(1)
    assert pair.handoffs[1].receive(999) == ([], True)
    assert pair.handoffs[1].receive(999) == ([], False)
    assert pair.handoffs[0].in_flight() == 0


def test_a_place_for_nobody_stays_with_us(pair: Pair) -> None:
    """A slot that is not known here cannot be told."""
    assert not pair.handoffs[0].offer_place(7)


def test_whoever_leaves_finds_a_worker_that_stays(pair: Pair) -> None:
    """Whatever the loads are; one that takes nobody, hangs or is not known here is none."""
    now_ns = time.monotonic_ns()
    pair.scoreboard.set_sessions(1, 9)
    assert pair.handoffs[0].stayer(now_ns) == 1
    pair.scoreboard.beat(1, now_ns - STALE_NS - 1)
    assert pair.handoffs[0].stayer(now_ns) is None
    pair.scoreboard.beat(1, now_ns)
    pair.scoreboard.set_accepting(1, False)
    assert pair.handoffs[0].stayer(now_ns) is None
    unknown = pair.scoreboard.open_row(7, 1)
    pair.scoreboard.set_accepting(unknown, True)
    pair.scoreboard.beat(unknown, now_ns)
    assert pair.handoffs[0].stayer(now_ns) is None
