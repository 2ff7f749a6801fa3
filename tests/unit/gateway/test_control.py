"""The worker's end of the channel: order, descriptors, a slow master and a dead one."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import uvloop

from gateway.control import Control
from gateway.core import messages, wire
from gateway.core.endpoint import Endpoint


class Ends:
    """A control with the master's ends in the test's handles."""

    def __init__(self) -> None:
        self.loop = uvloop.new_event_loop()
        pipe_r, self.pipe_w = os.pipe()
        self.sock, theirs = socket.socketpair()
        self.got: list[tuple[Any, list[int]]] = []
        self.garbage: list[str] = []
        self.orphaned = 0
        self.control = Control(
            self.loop,
            pipe_r=pipe_r,
            sock=theirs,
            listeners=2,
            on_message=lambda message, fds: self.got.append((message, fds)),
            on_orphaned=self._on_orphaned,
            on_garbage=self.garbage.append,
        )

    def _on_orphaned(self) -> None:
        self.orphaned += 1

    def turn(self) -> None:
        for _ in range(3):
            self.loop.run_until_complete(asyncio.sleep(0.001))

    def close(self) -> None:
        self.control.close()
        self.sock.close()
        self.loop.close()


@pytest.fixture
def ends() -> Iterator[Ends]:
    made = Ends()
    yield made
    made.close()


def _crowd(version: int) -> messages.Snapshot:
    names = [f"e{i}:1" for i in range(3 * wire.STEP)]
    return messages.Snapshot(version, tuple(Endpoint(name, ("127.0.0.1",), 1) for name in names))


def test_a_big_snapshot_lets_others_have_their_turn(ends: Ends) -> None:
    """It takes several turns of the loop, and what came after it still comes after it."""
    lines = wire.encode(_crowd(1)) + wire.encode(messages.Drain(1.0))
    turns = 0

    def turn() -> None:
        nonlocal turns
        turns += 1
        if len(ends.got) < 2:
            ends.loop.call_soon(turn)

    ends.loop.call_soon(turn)
    while lines:
        lines = lines[os.write(ends.pipe_w, lines[:4096]) :]
        ends.turn()
    while len(ends.got) < 2:
        ends.turn()
    assert [message for message, _ in ends.got] == [_crowd(1), messages.Drain(1.0)]
    assert turns > 3


def test_what_came_before_the_end_counts(ends: Ends) -> None:
    """A master that sent a big snapshot and died: the snapshot first, then the orphan."""
    line = wire.encode(_crowd(1))
    while line:
        line = line[os.write(ends.pipe_w, line[:4096]) :]
        ends.turn()
    os.close(ends.pipe_w)
    ends.turn()
    assert [message for message, _ in ends.got] == [_crowd(1)]
    assert ends.orphaned == 1


def test_messages_come_down_both_ways(ends: Ends) -> None:
    """Snapshots by the pipe, descriptors by the socket, each message with its own."""
    fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(3)]
    os.write(ends.pipe_w, wire.encode(messages.Drain(1.0)))
    socket.send_fds(ends.sock, [wire.encode(messages.Adopt(3))], fds[:2])
    socket.send_fds(ends.sock, [wire.encode(messages.Peer(4))], fds[2:])
    ends.sock.send(wire.encode(messages.Release(3)))
    ends.turn()
    by_type = {type(message).__name__: (message, fds) for message, fds in ends.got}
    assert by_type["Drain"] == (messages.Drain(1.0), [])
    assert len(by_type["Adopt"][1]) == 2
    assert len(by_type["Peer"][1]) == 1
    assert by_type["Release"] == (messages.Release(3), [])
    for fd in [*fds, *by_type["Adopt"][1], *by_type["Peer"][1]]:
        os.close(fd)
    os.close(ends.pipe_w)


def test_a_torn_message_waits_for_its_rest(ends: Ends) -> None:
    """A pipe gives what it has; a message is taken when it is whole."""
    line = wire.encode(messages.Drain(2.5))
    os.write(ends.pipe_w, line[:10])
    ends.turn()
    assert ends.got == []
    os.write(ends.pipe_w, line[10:])
    ends.turn()
    assert ends.got == [(messages.Drain(2.5), [])]
    os.close(ends.pipe_w)


def test_the_end_of_the_pipe_is_the_death_of_the_master(ends: Ends) -> None:
    """It is said once, and sending goes on without an error."""
    os.close(ends.pipe_w)
    ends.turn()
    ends.turn()
    assert ends.orphaned == 1
    ends.control.send(messages.Drained())


def test_a_slow_master_gets_everything_in_order(ends: Ends) -> None:
    """What the socket cannot take at once is kept, whole and in order."""
    count = 3000
    for n in range(count):
        ends.control.send(messages.DialFailed("a:1", "127.0.0.1", "refused", f"{n}" * 20))
    reader = wire.LineReader()
    lines: list[bytes] = []
    ends.sock.settimeout(5)
    while len(lines) < count:
        ends.turn()
        lines += list(reader.feed(ends.sock.recv(1 << 20)))
    errors = [wire.decode(line).error for line in lines]  # type: ignore[union-attr]
    assert errors == [f"{n}" * 20 for n in range(count)]
    os.close(ends.pipe_w)


def test_a_master_that_never_reads_costs_bounded_memory(ends: Ends) -> None:
    """Evidence beyond the bound is dropped, the stream stays readable."""
    for n in range(20_000):
        ends.control.send(messages.DialFailed("a:1", "127.0.0.1", "refused", f"{n}"))
    reader = wire.LineReader()
    lines: list[bytes] = []
    ends.sock.settimeout(0.5)
    try:
        while True:
            ends.turn()
            lines += list(reader.feed(ends.sock.recv(1 << 20)))
    except TimeoutError:
        pass
    errors = [int(wire.decode(line).error) for line in lines]  # type: ignore[union-attr]
    assert errors == sorted(errors)
    assert errors[-1] == 19_999
    assert len(errors) < 20_000
    os.close(ends.pipe_w)


def test_descriptors_travel_up_with_their_message(ends: Ends) -> None:
    """Bound carries the listeners."""
    with socket.socket() as listener:
        ends.control.send(messages.Bound(1), [listener.fileno()])
        data, fds, _, _ = socket.recv_fds(ends.sock, 1000, 10)
        assert wire.decode(data.rstrip()) == messages.Bound(1)
        assert len(fds) == 1
        os.close(fds[0])
    os.close(ends.pipe_w)


def test_a_line_that_is_no_message_costs_only_itself(ends: Ends) -> None:
    """After an upgrade the master may say what we do not know; what we know still counts."""
    os.write(ends.pipe_w, b'{"type":"Novelty"}\n' + wire.encode(messages.Drain(1.0)))
    ends.turn()
    assert ends.got == [(messages.Drain(1.0), [])]
    assert "Novelty" in ends.garbage[0]
    os.close(ends.pipe_w)
