"""The worker's end of the channel: order, descriptors, a slow master and a dead one."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import uvloop

from gateway import message_socket
from gateway.control import Control
from gateway.core import messages, wire
from gateway.core.endpoint import Endpoint
from gateway.descriptors import receive


class Ends:
    """A control with the master's ends in the test's handles."""

    def __init__(self) -> None:
        self.loop = uvloop.new_event_loop()
        pipe_r, self.pipe_w = os.pipe()
        self.sock, theirs = socket.socketpair()
        self.got: list[tuple[Any, list[int]]] = []
        self.garbage: list[str] = []
        self.lost: list[Any] = []
        self.orphaned = 0
        self.fails_on: Any = None
        self.control = Control(
            self.loop,
            pipe_r=pipe_r,
            sock=theirs,
            on_message=self._on_message,
            on_orphaned=self._on_orphaned,
            on_lost=self.lost.append,
            on_garbage=self.garbage.append,
        )

    def _on_message(self, message: Any, fds: list[int]) -> None:
        if message == self.fails_on:
            raise KeyError("a bug")
        self.got.append((message, fds))

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
    socket.send_fds(ends.sock, [wire.encode(messages.Adopt(3), descriptors=2)], fds[:2])
    socket.send_fds(ends.sock, [wire.encode(messages.Peer(4), descriptors=1)], fds[2:])
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


def test_what_a_former_master_left_half_written_costs_only_itself(ends: Ends) -> None:
    """The next master begins with an empty line, and its first message is understood."""
    os.write(ends.pipe_w, b'{"type": "Loads", "endp')
    os.write(ends.pipe_w, b"\n" + wire.encode(messages.Loads({"b": 2})))
    os.write(ends.pipe_w, b"\n" + wire.encode(messages.Loads({"b": 3})))
    ends.turn()
    assert ends.got == [(messages.Loads({"b": 2}), []), (messages.Loads({"b": 3}), [])]
    assert len(ends.garbage) == 1
    os.close(ends.pipe_w)


def test_a_host_without_memory_is_no_end(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is sent in such a moment is read later, and so is everything behind it."""

    def refuse(*_: object) -> tuple[bytes, list[int]]:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    socket.send_fds(ends.sock, [wire.encode(messages.Release(3))], [])
    with monkeypatch.context() as short:
        short.setattr(message_socket, "receive", refuse)
        ends.turn()
    ends.turn()
    assert ends.got == [(messages.Release(3), [])]


def test_a_process_without_memory_reads_less(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the host gives none away that it may not have (vm.overcommit_memory=2)."""
    read = os.read

    def read_little(fd: int, size: int) -> bytes:
        if size > message_socket.LEAST_BYTES:
            raise MemoryError
        return read(fd, size)

    def receive_little(sock: socket.socket, size: int) -> tuple[bytes, list[int]]:
        if size > message_socket.LEAST_BYTES:
            raise MemoryError
        return receive(sock, size)

    monkeypatch.setattr(os, "read", read_little)
    monkeypatch.setattr(message_socket, "receive", receive_little)
    socket.send_fds(ends.sock, [wire.encode(messages.Release(3))], [])
    ends.turn()
    os.write(ends.pipe_w, wire.encode(messages.Drain(1.0)))
    ends.turn()
    assert ends.got == [(messages.Release(3), []), (messages.Drain(1.0), [])]


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
    ends.sock.settimeout(60)
    while len(lines) < count:
        ends.turn()
        lines += list(reader.feed(ends.sock.recv(1 << 20)))
    errors = [wire.decode(line).error for line in lines]  # type: ignore[union-attr]
    assert errors == [f"{n}" * 20 for n in range(count)]
    os.close(ends.pipe_w)


@pytest.mark.slow
def test_a_master_that_never_reads_costs_bounded_memory(ends: Ends) -> None:
    """Evidence beyond the bound is dropped, the stream stays readable."""
    for n in range(100_000):
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
    assert errors[-1] == 99_999
    assert len(errors) < 100_000
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


def test_an_unknown_message_takes_its_descriptors_with_it(ends: Ends) -> None:
    """A master of a later release says what we do not know: what follows keeps its descriptors."""
    read_end, write_end = os.pipe()
    line = b'{"type":"Novelty","descriptors":2}\n'
    socket.send_fds(ends.sock, [line], [write_end, write_end])
    os.close(write_end)
    socket.send_fds(ends.sock, [wire.encode(messages.Peer(4), descriptors=1)], [read_end])
    inode = os.fstat(read_end).st_ino
    os.close(read_end)
    ends.turn()
    [(message, [fd])] = ends.got
    assert message == messages.Peer(4)
    assert os.fstat(fd).st_ino == inode
    assert os.read(fd, 1) == b"", "the ends that came with the unknown message are closed"
    assert "Novelty" in ends.garbage[0]
    os.close(fd)
    os.close(ends.pipe_w)


@pytest.mark.parametrize("count", [0, 2])
def test_descriptors_that_do_not_fit_their_message(ends: Ends, count: int) -> None:
    """A message with too many or too few descriptors is left out, and they are closed."""
    read_end, write_end = os.pipe()
    line = wire.encode(messages.Peer(4), descriptors=count)
    socket.send_fds(ends.sock, [line], [write_end] * count)
    os.close(write_end)
    ends.sock.send(wire.encode(messages.Release(3)))
    ends.turn()
    assert ends.got == [(messages.Release(3), [])]
    assert ends.garbage == [f"Peer came with {count} descriptors"]
    assert os.read(read_end, 1) == b""
    os.close(read_end)
    os.close(ends.pipe_w)


def test_descriptors_that_were_lost_cost_their_own_message(ends: Ends) -> None:
    """Without a free descriptor the message is left out, and the next one gets its own."""
    spare = os.open("/dev/null", os.O_RDONLY)

    async def starve() -> None:
        line = wire.encode(messages.Adopt(3), descriptors=2)
        with no_descriptors_left():
            socket.send_fds(ends.sock, [line], [spare, spare])
            await asyncio.sleep(0.01)

    ends.loop.run_until_complete(starve())
    assert ends.got == []
    assert ends.lost == [messages.Adopt(3)]
    assert ends.garbage == []
    socket.send_fds(ends.sock, [wire.encode(messages.Peer(4), descriptors=1)], [spare])
    os.close(spare)
    ends.turn()
    [(message, fds)] = ends.got
    assert message == messages.Peer(4)
    os.close(fds[0])
    os.close(ends.pipe_w)


@contextlib.contextmanager
def no_descriptors_left() -> Iterator[None]:
    """Within it, no descriptor can be opened."""
    taken = []
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for fd in taken:
            os.close(fd)


def test_one_handler_that_fails_costs_one_message(ends: Ends) -> None:
    """What was read with the message that was not handled is handled all the same, both ways."""
    errors: list[object] = []
    ends.loop.set_exception_handler(lambda _, context: errors.append(context["exception"]))
    ends.fails_on = messages.Release(1)
    ends.sock.send(wire.encode(messages.Release(1)) + wire.encode(messages.Release(2)))
    ends.turn()
    ends.fails_on = messages.Drain(1.0)
    os.write(ends.pipe_w, wire.encode(messages.Drain(1.0)) + wire.encode(messages.Drain(2.0)))
    ends.turn()
    assert [message for message, _ in ends.got] == [messages.Release(2), messages.Drain(2.0)]
    assert len(errors) == 2
    os.close(ends.pipe_w)


def test_what_must_arrive_is_never_dropped(ends: Ends) -> None:
    """A master that reads late has every Ready, Bound, Report and Drained."""
    ends.control.send(messages.Ready(1))
    for n in range(60_000):
        ends.control.send(messages.DialFailed("a:1", "127.0.0.1", "refused", "x" * 1000))
        if n % 1000 == 0:
            ends.control.send(messages.Report(n, 0, 0.0, 0))
        if n == 30_000:
            ends.control.send(messages.Bound(0))
    ends.control.send(messages.Drained(3))
    reader = wire.LineReader()
    seen: list[Any] = []
    size = 0
    ends.sock.settimeout(60)
    while not seen or seen[-1] != messages.Drained(3):
        ends.turn()
        data = ends.sock.recv(1 << 20)
        size += len(data)
        seen += [wire.decode(line) for line in reader.feed(data)]
    kinds = [type(message).__name__ for message in seen]
    assert (kinds.count("Ready"), kinds.count("Bound"), kinds.count("Drained")) == (1, 1, 1)
    reports = [message.snapshot_version for message in seen if type(message) is messages.Report]
    assert reports == list(range(0, 60_000, 1000))
    assert size < 6 << 20, "what waits is bounded by its bytes"
    os.close(ends.pipe_w)
