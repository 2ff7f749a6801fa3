"""Messages survive the wire, and nothing else gets through it."""

from __future__ import annotations

import dataclasses
import functools
import typing
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import messages, wire
from gateway.core.counters import DIAL_BOUNDS_S, EndpointCounters, Histogram, WorkerCounters
from gateway.core.endpoint import Endpoint, EndpointState
from gateway.core.reports import report_of

KINDS = typing.get_args(messages.Down) + typing.get_args(messages.Up)

_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
st.register_type_strategy(str, _TEXT)
st.register_type_strategy(int, st.integers(-(2**53), 2**53))
st.register_type_strategy(float, st.floats(allow_nan=False, allow_infinity=False))


@given(st.one_of([st.from_type(kind) for kind in KINDS]))
def test_round_trip(message: Any) -> None:
    """Every message, whatever its values, comes out of the wire as it went in."""
    line = wire.encode(message)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert wire.decode(line) == message


@given(st.binary())
def test_garbage_is_a_wire_error(line: bytes) -> None:
    """Bytes that are no message raise WireError and nothing else."""
    with pytest.raises(wire.WireError):
        wire.decode(line)


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ([], "not an object"),
        ({"type": "Nonsense"}, "unknown message type 'Nonsense'"),
        ({"type": 7}, "unknown message type 7"),
        ({"type": "Drained", "cut": "x"}, "Drained.cut: expected int, got 'x'"),
        ({"type": "Drained", "cut": True}, "Drained.cut: expected int, got True"),
        ({"type": "Drained", "more": 1}, "unknown field 'more'"),
        ({"type": "Ready"}, "field 'snapshot_version' is missing"),
        ({"type": "Drain", "deadline_s": "1"}, "Drain.deadline_s: expected number"),
        ({"type": "Snapshot", "version": 1, "endpoints": {}}, "endpoints: expected list"),
        ({"type": "Loads", "endpoints": []}, "Loads.endpoints: expected dict"),
        ({"type": "Loads", "endpoints": {"a": None}}, "Loads.endpoints['a']"),
        ({"type": "Drain", "deadline_s": True}, "Drain.deadline_s: expected number, got True"),
        ({"type": "Snapshot", "version": 1, "endpoints": [3]}, "endpoints[0]: expected dict"),
        (
            {
                "type": "Snapshot",
                "version": 1,
                "endpoints": [{"name": "a", "addresses": [], "port": 1, "state": "odd"}],
            },
            "Snapshot.endpoints[0].state: 'odd' is no EndpointState",
        ),
    ],
)
def test_strict_decoding(document: Any, complaint: str) -> None:
    """A wrong field is named, with what it should have been."""
    with pytest.raises(wire.WireError) as error:
        wire.decode(orjson.dumps(document))
    assert complaint in str(error.value)


def test_prepared_decoders_are_the_ones_that_are_used() -> None:
    """What is made before a fork is not made again in each child."""
    wire.prepare()
    made = wire._decoder.cache_info().misses
    for kind in KINDS:
        with pytest.raises(wire.WireError):
            wire.decode(orjson.dumps({"type": kind.__name__, "odd": 0, "version": "x"}))
    assert wire._decoder.cache_info().misses == made


def test_encode_refuses_a_line_beyond_the_cap() -> None:
    """What the other end would refuse is not sent in the first place."""
    failed = messages.Failed("bind", "x" * wire.MAX_LINE_BYTES)
    with pytest.raises(wire.WireError, match="Failed of"):
        wire.encode(failed)


@given(st.lists(st.binary().map(lambda b: b.replace(b"\n", b""))), st.integers(1, 9))
def test_lines_are_cut_wherever_the_stream_is(lines: list[bytes], step: int) -> None:
    """Lines come out whole however the stream was torn into reads."""
    stream = b"".join(line + b"\n" for line in lines)
    reader = wire.LineReader()
    got: list[bytes] = []
    for start in range(0, len(stream), step):
        got += reader.feed(stream[start : start + step])
    assert got == lines


def test_a_line_that_never_ends_is_an_error() -> None:
    """A peer that sends no newline cannot make us keep everything."""
    reader = wire.LineReader(max_line_bytes=10)
    with pytest.raises(wire.WireError, match="more than 10 bytes"):
        list(reader.feed(b"x" * 11))


def test_optional_fields_decode() -> None:
    """``X | None`` takes both."""

    @dataclasses.dataclass(frozen=True)
    class Sample:
        value: typing.Optional[int] = None  # noqa: UP045 - the other spelling is tested below

    @dataclasses.dataclass(frozen=True)
    class Other:
        value: int | None = None

    for kind in (Sample, Other):
        convert = wire._dataclass_decoder(kind)
        assert convert({"value": None}) == kind()
        assert convert({"value": 3}) == kind(3)


def test_snapshots_that_follow_each_other() -> None:
    """Each is decoded as it is, whatever came before; what is wrong is named with its place."""
    one, two, three = (Endpoint(f"{n}:1", ("10.0.0.1",), 1) for n in "abc")
    worse = dataclasses.replace(two, state=EndpointState.INACTIVE)
    for endpoints in ((one, two), (one, worse, three), (worse,), (), (three, two, one)):
        snapshot = messages.Snapshot(1, endpoints)
        assert wire.decode(wire.encode(snapshot)) == snapshot
    good = {"name": "a:1", "addresses": ["::1"], "port": 1}
    for wrong, where in (
        ("x", r"Snapshot.endpoints: expected list"),
        ([good, {"name": 1}], r"Snapshot.endpoints\[1\]: field"),
        ([good | {"addresses": "::1"}], r"Snapshot.endpoints\[0\].addresses: expected list"),
        ([good | {"addresses": ["::1", 1]}], r"Snapshot.endpoints\[0\].addresses\[1\]: expected"),
    ):
        line = wire.encode(messages.Snapshot(1, ())).replace(b"[]", orjson.dumps(wrong))
        with pytest.raises(wire.WireError, match=where):
            wire.decode(line)


def test_report_carries_every_counter() -> None:
    """What a worker counted is what its report says."""
    endpoint = EndpointCounters(
        sessions=1, sessions_total=5, bytes_in=10, bytes_out=20, dials={"connected": 5}
    )
    endpoint.dial_seconds.observe(0.0003)
    counters = WorkerCounters(
        sessions=2,
        ended={"client": 4},
        refused={"no-endpoint": 1},
        accept_paused={"memory": 3},
        log_dropped=6,
        handed_over=7,
        endpoints={"a:1": endpoint},
    )
    counters.session_seconds.observe(1e9)
    report = report_of(counters, snapshot_version=9, loop_lag_s=0.5, rss_bytes=11, cpu_s=2.5)
    assert (report.snapshot_version, report.loop_lag_s) == (9, 0.5)
    assert (report.rss_bytes, report.cpu_s) == (11, 2.5)
    assert (report.sessions, report.ended, report.refused) == (
        2,
        {"client": 4},
        {"no-endpoint": 1},
    )
    assert (report.log_dropped, report.handed_over) == (6, 7)
    assert report.accept_paused == {"memory": 3}
    assert report.session_buckets[-1] == 1
    assert report.session_seconds == 1e9
    of = report.endpoints["a:1"]
    assert (of.sessions, of.sessions_total, of.bytes_in, of.bytes_out) == (1, 5, 10, 20)
    assert of.dials == {"connected": 5}
    assert of.dial_buckets[DIAL_BOUNDS_S.index(0.0005)] == 1
    assert of.dial_seconds == 0.0003
    assert wire.decode(wire.encode(report)) == report


@given(st.lists(st.floats(0, 1e6)))
def test_histogram_counts_each_value_once(values: list[float]) -> None:
    """Every value falls into exactly one bucket, the first whose bound it does not exceed."""
    histogram = Histogram((0.1, 1.0, 10.0))
    for value in values:
        histogram.observe(value)
    assert histogram.counts == [
        sum(v <= 0.1 for v in values),
        sum(0.1 < v <= 1.0 for v in values),
        sum(1.0 < v <= 10.0 for v in values),
        sum(v > 10.0 for v in values),
    ]
    assert histogram.total == pytest.approx(sum(values))


def test_endpoint_states_are_the_words_of_the_contract() -> None:
    """The enum's values are what the status document shows."""
    assert [str(state) for state in EndpointState] == ["active", "inactive", "removed", "draining"]
    assert Endpoint("a:1", ("127.0.0.1",), 1).state is EndpointState.ACTIVE


def test_a_whole_number_is_a_number() -> None:
    """JSON writes 1.0 as 1 now and then; an int never comes out where a float belongs."""
    message = wire.decode(b'{"type": "Drain", "deadline_s": 1}')
    assert isinstance(message, messages.Drain)
    assert isinstance(message.deadline_s, float)


def _crowd(count: int) -> messages.Snapshot:
    return messages.Snapshot(7, tuple(Endpoint(f"e{i}:1", ("127.0.0.1",), 1) for i in range(count)))


@pytest.mark.parametrize("count", [0, wire.STEP, wire.STEP + 1, 3 * wire.STEP])
def test_a_big_snapshot_is_decoded_in_steps(count: int) -> None:
    """It pauses after each step, and is the same in the end."""
    decoded: list[Any] = []

    def drive() -> typing.Iterator[None]:
        decoded.append((yield from wire.decode_in_steps(wire.encode(_crowd(count)))))

    pauses = len(list(drive()))
    assert decoded == [_crowd(count)]
    assert pauses == (-(-count // wire.STEP) if count > wire.STEP else 0)


def test_what_is_wrong_in_a_big_snapshot_is_named() -> None:
    """By its place in the whole list."""
    document = orjson.loads(wire.encode(_crowd(2 * wire.STEP)))
    document["endpoints"][wire.STEP + 1]["port"] = "1"
    with pytest.raises(wire.WireError, match=rf"Snapshot.endpoints\[{wire.STEP + 1}\].port: exp"):
        wire.decode(orjson.dumps(document))


def test_a_line_says_how_many_descriptors_come_with_it() -> None:
    """Whatever its type is, and whether or not the rest of it is understood."""
    line = wire.encode(messages.Peer(3), descriptors=1)
    assert wire.count_descriptors(line) == 1
    assert wire.decode(line) == messages.Peer(3)
    assert wire.count_descriptors(wire.encode(messages.Release(3))) == 0
    assert wire.count_descriptors(b'{"type":"Novelty","descriptors":7}') == 7
    for odd in (b'["descriptors":]', b'["descriptors"]', b'[{"descriptors":3}]'):
        assert wire.count_descriptors(odd) == 0
    for value in (b'"2"', b"-1", b"true", b"null"):
        assert wire.count_descriptors(b'{"descriptors":' + value + b"}") == 0


def test_what_says_nothing_is_not_sent() -> None:
    """Thousands of endpoints go to each worker, and their figures to the master every second."""
    plain = Endpoint("a:1", ("192.0.2.1",), 1)
    told = Endpoint("b:1", ("192.0.2.2",), 1, weight=3, state=EndpointState.DRAINING, emptied=True)
    settings = messages.Settings(access_log=True)
    snapshot = messages.Snapshot(1, (plain, told), settings)
    document = orjson.loads(wire.encode(snapshot))
    assert [sorted(each) for each in document["endpoints"]] == [
        ["addresses", "name", "port"],
        ["addresses", "emptied", "name", "port", "state", "weight"],
    ]
    assert document["settings"] == {"access_log": True}
    report = messages.Report(1, 0, 0.0, 9, endpoints={"a:1": messages.EndpointReport(bytes_in=5)})
    assert orjson.loads(wire.encode(report)) == {
        "type": "Report",
        "snapshot_version": 1,
        "sessions": 0,
        "loop_lag_s": 0.0,
        "rss_bytes": 9,
        "endpoints": {"a:1": {"bytes_in": 5}},
    }


@functools.cache
def _newer_kind(kind: type) -> Any:
    """The class as a later release may have it: with one field more."""
    fields: list[Any] = [
        (
            each.name,
            each.type,
            dataclasses.field(default=each.default, default_factory=each.default_factory),
        )
        for each in dataclasses.fields(kind)
    ]
    return dataclasses.make_dataclass(kind.__name__, [*fields, ("news", int, 0)])


def _newer(value: Any) -> Any:
    """The value as a later release has it, and every one within it."""
    if isinstance(value, tuple):
        return tuple(map(_newer, value))
    if isinstance(value, dict):
        return {key: _newer(each) for key, each in value.items()}
    if not dataclasses.is_dataclass(value):
        return value
    kind: type = type(value)
    fields = {each.name: _newer(getattr(value, each.name)) for each in dataclasses.fields(value)}
    return _newer_kind(kind)(**fields)


@given(st.one_of([st.from_type(kind) for kind in KINDS]))
def test_an_older_process_reads_what_a_newer_one_sends(message: Any) -> None:
    """After an upgrade that failed, workers of before follow the endpoints of the new master."""
    assert wire.decode(wire.encode(_newer(message))) == message
