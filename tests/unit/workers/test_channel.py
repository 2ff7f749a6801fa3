"""The master's ends of one worker's channel."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
from collections.abc import AsyncIterator, Callable

import pytest

from gateway.core import messages, wire
from gateway.core.endpoint import Endpoint
from gateway.descriptors import receive
from supervisor.workers import reading_time
from supervisor.workers.channel import Channel
from supervisor.workers.reading_time import ReadingTime
from tests.support import eventually, no_descriptors_left, note_timers, watch_nothing


class Ends:
    """A channel and, in our handles, the worker's ends of it."""

    def __init__(self, *, inherited: bool = False, reading: ReadingTime | None = None) -> None:
        self.pipe_r, pipe_w = os.pipe()
        os.set_blocking(self.pipe_r, False)
        control, self.control = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.up: list[tuple[messages.Up, list[int]]] = []
        self.broken: list[str] = []
        self.lost: list[str] = []
        self.handle: Callable[[messages.Up, list[int]], None] = self._keep
        self.channel = Channel(
            asyncio.get_running_loop(),
            pipe_w=pipe_w,
            control=control,
            on_message=self._hear,
            on_lost=self.lost.append,
            on_broken=self.broken.append,
            reading=reading or ReadingTime(asyncio.get_running_loop()),
            inherited=inherited,
        )
        self.channel.start_reading()

    def _hear(self, message: messages.Up, fds: list[int]) -> None:
        self.handle(message, fds)

    def _keep(self, message: messages.Up, fds: list[int]) -> None:
        self.up.append((message, fds))

    def say(self, *lines: bytes) -> None:
        self.control.sendall(b"".join(lines))


@contextlib.asynccontextmanager
async def ends(
    *, inherited: bool = False, reading: ReadingTime | None = None
) -> AsyncIterator[Ends]:
    both = Ends(inherited=inherited, reading=reading)
    try:
        yield both
    finally:
        both.channel.close()
        both.channel.close()
        with contextlib.suppress(OSError):
            os.close(both.pipe_r)
        both.control.close()


def snapshot(version: int, endpoints: int = 0) -> bytes:
    names = (Endpoint(f"{i}.example.com:2379", ("10.0.0.1",), 2379) for i in range(endpoints))
    return wire.encode(messages.Snapshot(version, tuple(names)))


def test_what_many_workers_say_at_once_is_read_in_turns_of_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When the time of a turn is over, others have theirs before the next worker is read."""
    monkeypatch.setattr(reading_time, "TURN_S", 0.0)

    async def play() -> None:
        reading = ReadingTime(asyncio.get_running_loop())
        async with (
            ends(reading=reading) as one,
            ends(reading=reading) as two,
            ends(reading=reading) as three,
        ):
            for each in (one, two, three):
                each.say(wire.encode(messages.Drained()))
            heard = [0]
            async with asyncio.timeout(60):
                while heard[-1] < 3:
                    await asyncio.sleep(0)
                    heard.append(len(one.up) + len(two.up) + len(three.up))
            assert all(now - before <= 1 for before, now in itertools.pairwise(heard))

    asyncio.run(play())


def test_a_slow_pipe_drops_all_but_the_newest() -> None:
    """A worker that does not read costs nothing: the started line is finished, then the newest."""

    async def play() -> None:
        async with ends() as both:
            for version in range(1, 50):
                both.channel.send(snapshot(version, 3000), messages.Snapshot)
            both.channel.send(wire.encode(messages.Drain(1.0)), messages.Drain)
            reader = wire.LineReader()
            seen: list[object] = []

            def read() -> bool:
                with contextlib.suppress(BlockingIOError):
                    seen.extend(wire.decode(x) for x in reader.feed(os.read(both.pipe_r, 1 << 20)))
                return any(isinstance(each, messages.Drain) for each in seen)

            await eventually(read)
            versions = [each.version for each in seen if isinstance(each, messages.Snapshot)]
            assert versions == [1, 49]

    asyncio.run(play())


def test_a_slow_pipe_that_cannot_be_watched_is_written_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """fs.epoll.max_user_watches is reached: what waits goes down all the same."""

    async def play() -> None:
        loop = asyncio.get_running_loop()
        async with ends() as both:
            with monkeypatch.context() as full:
                full.setattr(loop, "add_writer", watch_nothing)
                both.channel.send(b"x" * (1 << 20) + b"\n", messages.Snapshot)
                both.channel.send(b"last\n", messages.Loads)
            data = bytearray()

            def read() -> bool:
                with contextlib.suppress(BlockingIOError):
                    data.extend(os.read(both.pipe_r, 1 << 16))
                return data.endswith(b"last\n")

            await eventually(read)

    monkeypatch.setattr("supervisor.workers.channel.AGAIN_S", 0.001)
    asyncio.run(play())


def test_one_timer_writes_to_a_slow_pipe_that_cannot_be_watched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However many messages there are meanwhile, and none once the channel is closed."""

    async def play() -> None:
        loop = asyncio.get_running_loop()
        async with ends() as both:
            begun = note_timers(loop, monkeypatch)
            monkeypatch.setattr(loop, "add_writer", watch_nothing)
            both.channel.send(b"x" * (1 << 20) + b"\n", messages.Snapshot)
            for _ in range(9):
                both.channel.send(b"last\n", messages.Loads)
        assert [each.cancelled() for each in begun] == [True]

    asyncio.run(play())


def test_a_full_control_socket_that_cannot_be_watched_is_written_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As that of an inherited worker may be, of which nothing is watched yet."""

    async def play() -> None:
        loop = asyncio.get_running_loop()
        async with ends() as both:
            both.control.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    both.channel.control.send(b"\n" * 4096)
            with monkeypatch.context() as full:
                full.setattr(loop, "add_writer", watch_nothing)
                both.channel.pass_down(messages.Release(1))
                both.channel.pass_down(messages.Release(2))
            data = bytearray()

            def read() -> bool:
                with contextlib.suppress(BlockingIOError):
                    data.extend(both.control.recv(1 << 16))
                return data.count(b"Release") == 2

            await eventually(read)

    monkeypatch.setattr("gateway.message_socket.AGAIN_S", 0.001)
    asyncio.run(play())


def test_the_first_word_to_an_inherited_worker_is_an_empty_line() -> None:
    """It ends the line that a former master may have left half written."""

    async def play() -> None:
        async with ends(inherited=True) as both:
            both.channel.send(snapshot(1), messages.Snapshot)
            assert os.read(both.pipe_r, 1 << 16) == b"\n" + snapshot(1)

    asyncio.run(play())


def test_descriptors_go_down_with_their_message() -> None:
    """They are duplicated when ordered, so the caller may close its own."""

    async def play() -> None:
        async with ends() as both:
            read_end, write_end = os.pipe()
            inode = os.fstat(read_end).st_ino
            both.channel.pass_down(messages.Adopt(3), [read_end])
            os.close(read_end)
            os.close(write_end)
            data, fds = receive(both.control, 4096, 8)
            assert wire.decode(data.strip()) == messages.Adopt(3)
            assert [os.fstat(fd).st_ino for fd in fds] == [inode]
            assert not os.get_inheritable(fds[0])
            os.close(fds[0])

    asyncio.run(play())


def test_a_full_control_socket_waits() -> None:
    """What the worker does not read now it gets later, in order."""

    async def play() -> None:
        async with ends() as both:
            for slot in range(5000):
                both.channel.pass_down(messages.Release(slot), [0] if slot == 4000 else [])
            reader = wire.LineReader()
            slots: list[int] = []
            extra: list[int] = []

            def read() -> bool:
                with contextlib.suppress(BlockingIOError):
                    data, fds = receive(both.control, 65536, 8)
                    extra.extend(fds)
                    for line in reader.feed(data):
                        message = wire.decode(line)
                        assert isinstance(message, messages.Release)
                        slots.append(message.slot)
                return len(slots) == 5000

            await eventually(read)
            assert slots == list(range(5000))
            assert len(extra) == 1
            os.close(extra[0])

    asyncio.run(play())


def test_listeners_come_up_with_bound() -> None:
    """Bound takes as many descriptors as it says, whatever else is in the stream."""

    async def play() -> None:
        async with ends() as both:
            both.say(wire.encode(messages.DialSucceeded("a:1")))
            socket.send_fds(both.control, [wire.encode(messages.Bound(2), descriptors=2)], [0, 1])
            both.say(wire.encode(messages.Ready(7)))
            await eventually(lambda: len(both.up) == 3)
            assert [len(fds) for _, fds in both.up] == [0, 2, 0]
            for fd in both.up[1][1]:
                os.close(fd)
            assert both.broken == []

    asyncio.run(play())


def test_one_handler_that_fails_costs_one_message() -> None:
    """What was read with the message that was not handled is handled all the same."""

    async def play() -> None:
        async with ends() as both:
            errors: list[object] = []
            asyncio.get_running_loop().set_exception_handler(
                lambda _, context: errors.append(context["exception"])
            )
            heard: list[messages.Up] = []

            def handle(message: messages.Up, fds: list[int]) -> None:
                assert not fds
                if isinstance(message, messages.DialSucceeded):
                    raise KeyError("a bug")
                heard.append(message)

            both.handle = handle
            both.say(wire.encode(messages.DialSucceeded("a:1")), wire.encode(messages.Ready(7)))
            await eventually(lambda: heard)
            assert heard == [messages.Ready(7)]
            assert [type(error) for error in errors] == [KeyError]

    asyncio.run(play())


def test_an_unknown_message_takes_its_descriptors_with_it() -> None:
    """A worker of a later release says what we do not know: what we know keeps its descriptors."""

    async def play() -> None:
        async with ends(inherited=True) as both:
            line = b'{"type":"Novelty","descriptors":1}\n'
            read_end, write_end = os.pipe()
            socket.send_fds(both.control, [line], [write_end])
            os.close(write_end)
            bound = wire.encode(messages.Bound(1), descriptors=1)
            socket.send_fds(both.control, [bound], [read_end])
            inode = os.fstat(read_end).st_ino
            os.close(read_end)
            await eventually(lambda: both.up)
            [(message, [fd])] = both.up
            assert message == messages.Bound(1)
            assert os.fstat(fd).st_ino == inode
            assert os.read(fd, 1) == b"", "the end that came with the unknown message is closed"
            os.close(fd)

    asyncio.run(play())


def test_a_worker_that_breaks_the_protocol() -> None:
    """Garbage, messages that only go down, and a Bound without descriptors are said once."""

    async def play() -> None:
        lines = (b"nonsense\n", snapshot(1), wire.encode(messages.Bound(1)))
        for line in lines:
            async with ends() as both:
                both.say(line, line)
                await eventually(both.broken.__len__)
                both.say(wire.encode(messages.Ready(1)))
                await asyncio.sleep(0.01)
                assert len(both.broken) == 1
                assert both.up == []

    asyncio.run(play())


def test_what_a_former_masters_worker_says_is_taken_as_far_as_it_is_understood() -> None:
    """Its first line may be torn, and it may be of another release: that is no reason to kill."""

    async def play() -> None:
        async with ends(inherited=True) as both:
            both.say(b'rest of a line"}\n', wire.encode(messages.Ready(1)))
            await eventually(lambda: both.up)
            both.say(b'{"type":"Report","news":1}\n', wire.encode(messages.Drained(0)))
            await eventually(lambda: len(both.up) == 2)
            assert not both.broken

    asyncio.run(play())


def test_what_an_exited_worker_said_last_is_heard() -> None:
    """drain() delivers what is still in the socket; afterwards sending is no error."""

    async def play() -> None:
        async with ends() as both:
            both.say(wire.encode(messages.Drained(3)))
            both.control.close()
            os.close(both.pipe_r)
            both.channel.drain()
            assert both.up == [(messages.Drained(3), [])]
            both.channel.send(snapshot(1), messages.Snapshot)
            both.channel.pass_down(messages.Release(1))
            both.channel.close()
            both.channel.send(snapshot(2), messages.Snapshot)
            both.channel.pass_down(messages.Release(1))

    asyncio.run(play())


def test_listeners_that_were_lost_are_told_and_break_nothing() -> None:
    """Without a free descriptor: that is this host's fault, not the worker's."""

    async def play() -> None:
        async with ends() as both:
            line = wire.encode(messages.Bound(1), descriptors=1)
            with no_descriptors_left():
                socket.send_fds(both.control, [line], [both.control.fileno()])
                await eventually(lambda: both.lost)
            both.say(wire.encode(messages.Ready(1)))
            await eventually(lambda: both.up)
            assert both.lost == ["no descriptor is left for Bound"]
            assert both.broken == []
            assert both.up == [(messages.Ready(1), [])]

    asyncio.run(play())
