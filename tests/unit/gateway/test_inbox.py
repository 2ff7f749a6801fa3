"""The inbox of a worker: what keeps it from waking the loop, or from holding it up."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator

import pytest

from gateway.core.counters import WorkerCounters
from gateway.core.descriptor_budget import DescriptorBudget
from gateway.descriptors import send
from gateway.ingress.handoff import Handoff
from gateway.ingress.inbox import Inbox
from gateway.ingress.quota import Quota
from gateway.scoreboard import Scoreboard
from tests.logbook import Logbook
from tests.support import no_descriptors_left, watch_nothing


class Receiver:
    """A worker's inbox, whose clients are kept, and whose places are counted."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.scoreboard = Scoreboard()
        row = self.scoreboard.open_row(0, 1)
        self.sock, self.sender = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.clients: list[int] = []
        self.offered = 0
        self.fails: Exception | None = None
        """What happens to clients, if none can be served."""
        counters = WorkerCounters()
        quota = Quota(
            self.scoreboard,
            row=row,
            counters=counters,
            budget=DescriptorBudget(counters),
            serve=self._serve,
        )
        handoff = Handoff(self.scoreboard, row=row, inbox=self.sock, peers={})
        self.inbox = Inbox(
            self.loop,
            self.sock,
            handoff,
            quota,
            Logbook(),
            on_place=self._on_place,
            on_change=self._on_change,
        )

    def _serve(self, fd: int, _: object) -> None:
        if self.fails:
            os.close(fd)
            raise self.fails
        self.clients.append(fd)

    @property
    def watched(self) -> bool:
        """Whether the loop looks after it."""
        return self.loop.remove_reader(self.sock)

    def _on_change(self) -> None:
        self.inbox.watch(not self.inbox.full)

    def _on_place(self) -> None:
        self.offered += 1

    def send(self, word: bytes) -> None:
        """A client, as another worker sends it."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            send(self.sender, word, [theirs.fileno()])

    def close(self) -> None:
        for fd in self.clients:
            os.close(fd)
        self.sock.close()
        self.sender.close()
        self.scoreboard.close()
        self.loop.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def test_who_waits_where_the_host_is_short_holds_nobody_up(receiver: Receiver) -> None:
    """By our count there is room, and the kernel has no number: it is asked again later."""
    receiver.send(b"+")
    with no_descriptors_left():
        receiver.inbox.take()
        assert receiver.inbox.full
        receiver.inbox.go_on()
    assert receiver.clients == []
    receiver.inbox.go_on()
    assert len(receiver.clients) == 1
    assert not receiver.inbox.full


def test_who_comes_behind_a_client_that_fails_is_turned_away(receiver: Receiver) -> None:
    """Whatever fails, nobody is left without an owner, and none is counted as on the way."""
    receiver.fails = MemoryError()
    pairs = [socket.socketpair() for _ in range(3)]
    for _, theirs in pairs:
        send(receiver.sender, b"+", [theirs.fileno()])
        theirs.close()
    with pytest.raises(MemoryError):
        receiver.inbox.take()
    for ours, _ in pairs:
        with ours:
            assert ours.recv(1) == b""
    assert (receiver.inbox.received, receiver.inbox.serving) == (0, False)


def test_an_inbox_that_nobody_can_send_to_is_left_alone(receiver: Receiver) -> None:
    """Its end would wake the loop again and again."""
    receiver.inbox.watch(True)
    receiver.sender.close()
    receiver.inbox.take()
    assert not receiver.watched


def test_an_inbox_that_the_loop_has_no_room_for_is_told_of(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is to be handed over to it until it is watched; it is tried again."""

    with monkeypatch.context() as full:
        full.setattr(receiver.loop, "add_reader", watch_nothing)
        assert not receiver.inbox.watch(True)
        assert receiver.inbox.unheard
    assert receiver.inbox.watch(True)
    assert not receiver.inbox.unheard
    assert receiver.watched


def test_a_place_is_taken_though_clients_came_behind_it(receiver: Receiver) -> None:
    """One of them of a UNIX socket, which is another word in the same batch."""
    send(receiver.sender, b"!")
    receiver.send(b"u")
    receiver.send(b"+")
    receiver.inbox.take()
    assert (receiver.offered, len(receiver.clients)) == (1, 2)
