"""The log: whole lines, never blocking, whatever standard error is and however many write to it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import pty
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.address import HostPort
from gateway.log_sink import MAX_LINE_BYTES, MAX_QUEUED_BYTES, LineSink
from supervisor.core.log_line import to_json_line
from supervisor.system.log import LineLog, make_log, take_library_messages
from tests.support import eventually, no_descriptors_left, wait_until


class Pipe:
    """A pipe whose reading end does not block."""

    def __init__(self) -> None:
        self.r, self.w = os.pipe()
        os.set_blocking(self.r, False)

    def read(self) -> bytes:
        data = b""
        try:
            while chunk := os.read(self.r, 1 << 20):
                data += chunk
        except BlockingIOError:
            pass
        return data

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.read().splitlines()]

    def close(self) -> None:
        for fd in (self.r, self.w):
            os.close(fd)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


@pytest.fixture
def log(pipe: Pipe) -> Iterator[LineLog]:
    log = make_log("info", "json", pipe.w)
    yield log
    log.close()


def fill(fd: int) -> int:
    """Fill a pipe through a description of our own; how many bytes went in."""
    own_fd = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK)
    done = 0
    try:
        while True:
            done += os.write(own_fd, b"." * 4096)
    except BlockingIOError:
        return done
    finally:
        os.close(own_fd)


# -- lines ---------------------------------------------------------------------------------------


def test_a_line_is_json(log: LineLog, pipe: Pipe) -> None:
    """A line carries level, RFC 3339 time in microseconds, message, and its fields."""
    log.bind(slot=1, gen=2).warn(
        "worker exited", addresses=(HostPort("::1", 1),), error=OSError("x")
    )
    (line,) = pipe.lines()
    stamp = line.pop("ts")
    assert line == {
        "level": "warn",
        "msg": "worker exited",
        "slot": 1,
        "gen": 2,
        "addresses": ["[::1]:1"],
        "error": "x",
    }
    assert len(stamp) == len("2026-01-01T00:00:00.000000Z")
    assert stamp.endswith("Z")


def test_what_libraries_say_is_a_line_like_all_others(log: LineLog, pipe: Pipe) -> None:
    """Warnings and errors only; without this they go to standard error as they are."""
    root = logging.getLogger()
    before = list(root.handlers)
    try:
        take_library_messages(log)
        logging.getLogger("library").info("chatter")
        logging.getLogger("library").error("deallocating %s", "a loop")
    finally:
        root.handlers[:] = before
    (line,) = pipe.lines()
    assert line["level"] == "error"
    assert line["msg"] == "message of a library"
    assert (line["library"], line["error"]) == ("library", "deallocating a loop")


def test_levels(log: LineLog, pipe: Pipe) -> None:
    """Lines below the level are not written; the level of all bound logs changes at once."""
    bound = log.bind(slot=0)
    log.debug("a")
    bound.set_level("debug")
    log.debug("b")
    log.set_level("error")
    bound.info("c")
    bound.warn("d")
    bound.error("e")
    assert [line["msg"] for line in pipe.lines()] == ["b", "e"]


def test_tap(pipe: Pipe) -> None:
    """Every record that is written is also handed to the tap, whole."""
    seen: list[dict[str, Any]] = []
    log = make_log("info", "json", pipe.w, tap=seen.append)
    log.debug("no")
    log.info("yes", text="x" * 9000)
    log.close()
    assert [(each["msg"], len(each["text"])) for each in seen] == [("yes", 9000)]


def test_a_list_is_cut_to_the_line() -> None:
    """A list keeps the items that fit and says how many do not."""
    names = [f"infra{i}.example.com:2379" for i in range(3000)]
    line = to_json_line(
        {"level": "info", "msg": "m", "endpoints": names, "short": [1, 2]}, MAX_LINE_BYTES
    )
    assert len(line) <= MAX_LINE_BYTES
    record = json.loads(line)
    *kept, more = record["endpoints"]
    assert kept == names[: len(kept)]
    assert len(kept) > 100
    assert more == f"and {3000 - len(kept)} more"
    assert record["short"] == [1, 2]


def test_a_list_of_which_nothing_fits_is_cut_as_text() -> None:
    """A first item that is longer than the line leaves the beginning of the list."""
    line = to_json_line({"level": "info", "msg": "m", "names": ["n" * 9000]}, MAX_LINE_BYTES)
    assert len(line) <= MAX_LINE_BYTES
    text = json.loads(line)["names"]
    assert text.startswith('["nnn')
    assert text.endswith("n…")


def test_fields_beyond_counting_are_dropped_from_the_end() -> None:
    """Thousands of fields lose the last ones, never level and message."""
    record = json.loads(
        to_json_line(
            {"level": "info", "msg": "m"} | {f"k{i}": i for i in range(3000)}, MAX_LINE_BYTES
        )
    )
    assert record["level"] == "info"
    assert record["k0"] == 0


_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=50)
    | st.binary(max_size=20)
    | st.text(max_size=3).map(lambda text: text * 2000),
    lambda inner: st.lists(inner, max_size=30) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=40,
)


@pytest.mark.slow
@given(st.dictionaries(st.text(min_size=1, max_size=20), _VALUES, max_size=20))
@settings(deadline=None, max_examples=40)
def test_any_record_is_one_line(fields: dict[str, Any]) -> None:
    """Whatever the fields hold, a record is one line of JSON that fits an atomic write."""
    line = to_json_line(
        {"level": "info", "msg": "m", **{f"f{key}": v for key, v in fields.items()}},
        MAX_LINE_BYTES,
    )
    assert len(line) <= MAX_LINE_BYTES
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert json.loads(line)["level"] == "info"


@pytest.mark.parametrize(
    "value", ["\udc80", 2**70, ["\udc80", {"a": 2**70}, None, 7], float("nan")]
)
def test_values_that_json_does_not_know(log: LineLog, pipe: Pipe, value: Any) -> None:
    """A value that cannot be JSON is written as text instead of raising."""
    log.info("odd", value=value)
    assert pipe.lines()[0]["msg"] == "odd"


def test_console_lines(pipe: Pipe) -> None:
    """Console lines are readable, and nothing in them can forge a line or move a cursor."""
    log = make_log("info", "console", pipe.w)
    fields = {"error": 'no "such\n host', "names": ["a", "b"], "none": ""}
    log.bind(endpoint="a:1").warn("bad \x1b[2J", **fields)
    log.info("long", text="é" * 9000)
    log.close()
    first, second = pipe.read().decode().splitlines()
    assert first.partition(" ")[2] == (
        'warn  bad \\x1b[2J endpoint=a:1 error="no \\"such\\n host" names=a,b none=""'
    )
    assert len(second.encode()) < MAX_LINE_BYTES


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_console_on_a_terminal(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """``auto`` is console with colours on a terminal; NO_COLOR and a dumb one turn them off."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    ours_fd, terminal_fd = pty.openpty()
    log = make_log("info", "auto", terminal_fd)
    log.info("hello", a=1)
    monkeypatch.setenv(name, value)
    plain = make_log("info", "auto", terminal_fd)
    plain.info("hello")
    log.close()
    plain.close()
    said = b""
    while said.count(b"\n") < 2:  # a terminal handles lines over as it likes
        said += os.read(ours_fd, 4096)
    coloured, bare = said.decode().splitlines()
    os.close(ours_fd)
    os.close(terminal_fd)
    assert "\x1b[32minfo \x1b[0m hello a=1" in coloured
    assert bare.endswith("Z info  hello")


def test_the_journal_stamps_lines_itself(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line begins with its priority there; one for people has no time, and JSON is the same."""
    status = os.fstat(pipe.w)
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    for line_format in ("console", "json"):
        log = make_log("info", line_format, pipe.w)
        log.error("no")
        log.close()
    console, line = pipe.read().splitlines()
    assert console == b"<3>error no"
    assert line.startswith(b'<3>{"level":"error","ts":"')


# -- the sink ------------------------------------------------------------------------------------


def test_a_full_pipe_blocks_nobody(log: LineLog, pipe: Pipe) -> None:
    """With a reader that never reads, lines queue up to the bound, then are dropped and counted."""
    fill(pipe.w)
    for i in range(2 * MAX_QUEUED_BYTES // 1000):
        log.info("m", i=i, text="x" * 900)
    lost = log.dropped
    assert lost > 100
    pipe.read()
    lines: list[dict[str, Any]] = []
    for _ in range(100):
        log.flush(0.001)
        lines += pipe.lines()
    *kept, told = lines
    assert [line["i"] for line in kept] == list(range(len(kept)))
    assert (told["msg"], told["dropped"], told["level"]) == ("log lines dropped", lost, "warn")
    log.info("once more")
    assert [line["msg"] for line in pipe.lines()] == ["once more"]


def test_the_shared_description_stays_blocking(log: LineLog, pipe: Pipe) -> None:
    """The pipe that others share is not made non-blocking for them."""
    log.info("m")
    assert not fcntl.fcntl(pipe.w, fcntl.F_GETFL) & os.O_NONBLOCK


def test_the_loop_writes_the_queue(log: LineLog, pipe: Pipe) -> None:
    """An attached loop writes what is queued as soon as the reader has made room."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        log.attach(loop)
        fill(pipe.w)
        log.info("late")
        read = loop.create_future()
        pipe.read()
        loop.add_reader(pipe.r, lambda: None if read.done() else read.set_result(pipe.read()))
        line = await asyncio.wait_for(read, 60)
        loop.remove_reader(pipe.r)
        assert json.loads(line)["msg"] == "late"

    asyncio.run(scenario())


def test_without_a_descriptor_a_line_waits_for_the_next_one(log: LineLog, pipe: Pipe) -> None:
    """The reader is slow and nothing can be opened to wait for it: nobody who logs notices."""

    async def scenario() -> None:
        log.attach(asyncio.get_running_loop())
        fill(pipe.w)
        with no_descriptors_left():
            log.info("late")
        pipe.read()
        log.info("next")
        assert [json.loads(line)["msg"] for line in pipe.read().splitlines()] == ["late", "next"]

    asyncio.run(scenario())


def test_the_loop_writes_what_could_not_be_waited_for_at_first(log: LineLog, pipe: Pipe) -> None:
    """There are descriptors again at the next line, and its reader is slow still."""

    async def scenario() -> None:
        log.attach(asyncio.get_running_loop())
        fill(pipe.w)
        with no_descriptors_left():
            log.info("late")
        log.info("next")
        written = bytearray()

        def read() -> bool:
            written.extend(pipe.read())
            return b"next" in written

        await eventually(read)

    asyncio.run(scenario())


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_loop_leaves_a_shared_socket_blocking(
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """Waiting for room in a socket does not make it non-blocking for others."""
    ours, theirs = socket.socketpair()
    log = make_log("info", "json", theirs.fileno())

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        log.attach(loop)
        ours.setblocking(False)
        for i in range(1000):
            log.info("m", i=i, text="x" * 500)
        assert os.get_blocking(theirs.fileno())
        last = b""
        for _ in range(100_000):
            await asyncio.sleep(0)
            with contextlib.suppress(BlockingIOError):
                last = ours.recv(1 << 20)
            if last.count(b"\n") and json.loads(last.splitlines()[-1])["i"] > 400:
                return
        raise AssertionError("the queue was not written")

    with ours, theirs, asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(scenario())
        log.close()


def test_attaching_late_writes_the_queue(log: LineLog, pipe: Pipe) -> None:
    """What was queued before there was a loop is written by the loop as well."""
    fill(pipe.w)
    log.info("early")

    async def scenario() -> None:
        log.attach(asyncio.get_running_loop())
        pipe.read()
        for _ in range(1000):
            await asyncio.sleep(0)
            if data := pipe.read():
                assert json.loads(data)["msg"] == "early"
                return
        raise AssertionError("nothing was written")

    asyncio.run(scenario())


def test_a_reader_that_left(log: LineLog) -> None:
    """A pipe without a reader costs lines, which are counted, and nothing else."""
    pipe_r, pipe_w = os.pipe()
    log = make_log("info", "json", pipe_w)
    log.info("a")
    os.close(pipe_r)
    log.info("b")
    assert log.dropped == 1
    log.close()
    os.close(pipe_w)


def test_a_closed_stream() -> None:
    """A descriptor that is not open costs lines and nothing else."""
    pipe_r, pipe_w = os.pipe()
    os.close(pipe_r)
    os.close(pipe_w)
    log = make_log("info", "auto", pipe_w)
    log.info("a")
    assert log.dropped == 1
    log.close()


def test_a_pipe_nobody_ever_read(tmp_path: Path) -> None:
    """A pipe that cannot be opened again does not block either, and keeps its mode."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader_fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writer_fd = os.open(path, os.O_WRONLY)
    sink = SharedSink(writer_fd)
    sink.write(b"a\n")
    assert os.read(reader_fd, 10) == b"a\n"
    fill(writer_fd)
    sink.write(b"b\n")
    assert sink.queued == 1
    assert os.get_blocking(writer_fd)
    sink.close()
    assert sink.dropped == 1
    os.close(reader_fd)
    os.close(writer_fd)


def test_room_that_another_process_took_is_not_waited_for(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe that is another user's may be full again when a line is on its way into it."""
    sink = SharedSink(pipe.w)
    fill(pipe.w)
    os.read(pipe.r, MAX_LINE_BYTES)
    write, splice = os.write, os.splice

    def take_room() -> None:
        monkeypatch.undo()
        fill(pipe.w)

    def write_late(fd: int, data: bytes) -> int:
        if fd == pipe.w:
            take_room()
        return write(fd, data)

    def splice_late(*args: Any, **kwargs: Any) -> int:
        take_room()
        return splice(*args, **kwargs)

    monkeypatch.setattr(os, "write", write_late)
    monkeypatch.setattr(os, "splice", splice_late)
    pid = in_child(lambda: sink.write(b"a\n"))
    status: list[int] = []

    def ended() -> bool:
        gone, code = os.waitpid(pid, os.WNOHANG)
        status.extend([code] if gone else [])
        return bool(gone)

    try:
        wait_until(ended, 20, "the line is queued")
    finally:
        pipe.read()
    assert status == [0]
    sink.close()


def test_a_pipe_of_somebody_else_goes_on_where_splice_is_refused(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a seccomp profile: then there is room before each write, or the line waits."""
    sink = SharedSink(pipe.w)
    monkeypatch.setattr(os, "splice", _refuse)
    sink.write(b"a\n")
    assert pipe.read() == b"a\n"
    fill(pipe.w)
    sink.write(b"b\n")
    assert sink.queued == 1
    pipe.read()
    sink.flush(1)
    assert pipe.read() == b"b\n"
    sink.close()


def test_a_pipe_of_somebody_else_takes_long_lines(pipe: Pipe) -> None:
    """What has no room yet follows later, and nothing of it twice."""
    sink = SharedSink(pipe.w)
    line = bytes(range(33, 123)) * 1000 + b"\n"
    fill(pipe.w)
    os.read(pipe.r, MAX_LINE_BYTES)
    sink.write(line)
    assert sink.queued == 1
    sink.write(b"next\n")
    data = pipe.read()
    while sink.queued:
        sink.flush(0.001)
        data += pipe.read()
    assert data.lstrip(b".") == line + b"next\n"
    sink.close()


def test_a_pipe_of_somebody_else_whose_reader_left() -> None:
    """It costs lines, which are counted, and nothing else."""
    pipe_r, pipe_w = os.pipe()
    sink = SharedSink(pipe_w)
    os.close(pipe_r)
    sink.write(b"a\n")
    sink.write(b"b\n")
    assert (sink.dropped, sink.queued) == (2, 0)
    sink.close()
    os.close(pipe_w)


def test_without_descriptors_a_pipe_of_somebody_else_is_written(pipe: Pipe) -> None:
    """A sink that can have no pipe of its own does without."""
    with no_descriptors_left():
        sink = SharedSink(pipe.w)
        sink.write(b"a\n")
    assert pipe.read() == b"a\n"
    sink.close()


def test_a_terminal_of_somebody_else() -> None:
    """A terminal that cannot be opened again is asked for room before each write."""
    ours_fd, terminal_fd = pty.openpty()
    sink = SharedSink(terminal_fd)
    for _ in range(100):
        sink.write(b"x" * 1000 + b"\n")
    assert sink.queued > 0
    assert os.read(ours_fd, 10) == b"x" * 10
    sink.close()
    os.close(ours_fd)
    os.close(terminal_fd)


def SharedSink(fd: int) -> LineSink:  # noqa: N802 - reads like the class it makes
    """A sink that is not allowed to open its pipe again, as after a change of user."""
    real_open = os.open
    try:
        os.open = _refuse
        return LineSink(fd)
    finally:
        os.open = real_open


def _refuse(*_args: Any, **_kwargs: Any) -> int:
    raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_a_unix_socket_as_the_stream(kind: socket.SocketKind) -> None:
    """A socket is written without waiting, without changing it, and without torn lines."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    with ours, theirs:
        log = make_log("info", "json", theirs.fileno())
        for i in range(2000):
            log.info("m", i=i, text="x" * 500)
        assert theirs.getblocking()
        assert log.dropped > 0
        ours.setblocking(False)
        data = b""
        while True:
            try:
                data += ours.recv(1 << 20)
            except BlockingIOError:
                break
        numbers = [json.loads(line)["i"] for line in data.splitlines()]
        assert numbers == list(range(len(numbers)))
        log.close()


def test_a_regular_file_keeps_its_offset(tmp_path: Path) -> None:
    """Two processes' worth of sinks on one file description append to each other."""
    with (tmp_path / "log").open("wb") as file:
        one, two = make_log("info", "json", file.fileno()), make_log("info", "json", file.fileno())
        one.info("a")
        two.info("b")
        one.info("c")
        one.close()
        two.close()
    lines = (tmp_path / "log").read_bytes().splitlines()
    assert [json.loads(line)["msg"] for line in lines] == ["a", "b", "c"]


def test_a_full_disk() -> None:
    """A device that takes nothing costs lines and nothing else."""
    fd = os.open("/dev/full", os.O_WRONLY)
    log = make_log("info", "json", fd)
    log.info("a")
    assert log.dropped == 1
    log.close()
    os.close(fd)


def test_a_cut_line_does_not_spoil_the_next(tmp_path: Path) -> None:
    """After a write that a file took in part, the next line starts on a line of its own."""
    code = """if True:
        import os, resource, signal, sys
        from gateway.log_sink import LineSink
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
        sink = LineSink(fd)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.RLIM_INFINITY))
        sink.write(b"0123456\\n")
        sink.write(b"abcdefg\\n")
        sink.write(b"lost\\n")
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, -1))
        sink.write(b"next\\n")
        assert sink.dropped == 2, sink.dropped
    """
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "log")], check=True)
    assert (tmp_path / "log").read_bytes() == b"0123456\nab\nnext\n"


def test_closing_gives_descriptors_back(pipe: Pipe) -> None:
    """A closed log holds no descriptors, and the stream stays open."""
    before = os.listdir("/proc/self/fd")
    log = make_log("info", "json", pipe.w)
    log.info("a")
    assert os.listdir("/proc/self/fd") != before
    log.close()
    assert os.listdir("/proc/self/fd") == before
    sink = SharedSink(pipe.w)
    sink.write(b"a\n")
    sink.close()
    assert os.listdir("/proc/self/fd") == before
    os.fstat(pipe.w)


# -- several processes ---------------------------------------------------------------------------


def in_child(run: Callable[[], None]) -> int:
    """Fork, run it in the child and leave without cleaning up; the child's pid."""
    if pid := os.fork():
        return pid
    status = 1
    try:
        run()
        status = 0
    finally:
        os._exit(status)


def test_a_child_has_its_own_queue(log: LineLog, pipe: Pipe) -> None:
    """What the parent has queued is not written a second time by its child."""
    fill(pipe.w)
    log.info("parent's")
    pid = in_child(lambda: log.bind(slot=3).info("child's"))
    assert os.waitpid(pid, 0)[1] == 0
    pipe.read()
    log.flush(1)
    assert [line["msg"] for line in pipe.lines()] == ["parent's"]


def test_lines_of_many_processes_are_never_torn(log: LineLog, pipe: Pipe) -> None:
    """Eight processes write lines of up to 4 KiB into one slow pipe; each line arrives whole."""

    def write(slot: int) -> None:
        log.after_fork()
        mine = log.bind(slot=slot)
        for i in range(300):
            mine.info("m", i=i, text=chr(65 + slot) * (i * 37 % 5000))
        mine.flush(20)

    pids = {in_child(lambda slot=slot: write(slot)) for slot in range(8)}  # type: ignore[misc]
    data = b""

    def gone() -> bool:
        nonlocal data
        data += pipe.read()
        for pid in tuple(pids):
            if os.waitpid(pid, os.WNOHANG)[0]:
                pids.discard(pid)
        return not pids

    wait_until(gone, 60, "all writers have written")
    data += pipe.read()
    seen: dict[int, list[int]] = {slot: [] for slot in range(8)}
    for line in data.splitlines():
        assert len(line) < MAX_LINE_BYTES
        record = json.loads(line)
        if record["msg"] == "m":
            assert set(record["text"].rstrip("…")) <= {chr(65 + record["slot"])}
            seen[record["slot"]].append(record["i"])
    assert all(numbers == sorted(numbers) for numbers in seen.values())
    assert all(numbers for numbers in seen.values())
