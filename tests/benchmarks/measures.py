"""What is measured on every subject: one round of each measure is one fresh process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.benchmarks.loads import (
    Answers,
    first_byte_s,
    idle_sessions,
    load_bulk,
    load_requests,
    steady_bulk,
)
from tests.benchmarks.machine import Places
from tests.benchmarks.processes import Process
from tests.benchmarks.subjects import Subject

WARM_UP_S = 1
_BULK_RATE_MIB_S = 200
_START_LIMIT_S = 20.0
_WARM_UP_SESSIONS = 100
_LEAST_RISE_US = 100.0  # below it a difference of two p99 is noise


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Where a round takes place: CPUs, backends, a directory for files, and how much load."""

    places: Places
    endpoints: tuple[str, ...]
    tls_endpoints: tuple[str, ...]
    http2_endpoints: tuple[str, ...]
    many_endpoints: tuple[str, ...]
    sink: str
    directory: Path
    duration_s: int
    sessions: int


@dataclass(frozen=True, slots=True)
class Metric:
    """One value of a measure; ``decimals`` for printing."""

    key: str
    title: str
    decimals: int = 1
    chart: bool = False


@dataclass(frozen=True, slots=True)
class Measure:
    """One kind of load; the first metric is the one that counts, lower is better.

    ``in_process``: no program is run, but the code that is here.
    """

    key: str
    title: str
    metrics: tuple[Metric, ...]
    take: Callable[[Subject, Setting], Mapping[str, float]] = field(repr=False)
    in_process: bool = False


def serve(
    subject: Subject, setting: Setting, endpoints: Sequence[str], *, bulk: bool = False
) -> tuple[Process, int]:
    """The subject in front of ``endpoints``, on its CPU."""
    return subject.serve(endpoints, setting.directory, cpus=setting.places.subject, bulk=bulk)


def take_requests(
    subject: Subject,
    setting: Setting,
    *,
    sessions: int,
    idle: int = 0,
    endpoints: Sequence[str] = (),
    reconnect: bool = False,
    scheme: str = "http",
) -> Mapping[str, float]:
    """Round trips of ``sessions``, or connections with one each.

    ``idle``: as many more sessions are open meanwhile and silent.
    """
    process, port = serve(subject, setting, endpoints or setting.endpoints)
    load = partial(
        load_requests, port, sessions, cpus=setting.places.load, reconnect=reconnect, scheme=scheme
    )
    try:
        with idle_sessions(port, idle):
            load(WARM_UP_S)
            before_s = process.cpu_s()
            seen = load(setting.duration_s)
            used_s = process.cpu_s() - before_s
    finally:
        process.stop()
    return {
        "cpu_us": used_s / seen.count * 1e6,
        "rate": seen.rate,
        "p50_us": seen.p50_us,
        "p99_us": seen.p99_us,
    }


def _take_bulk(subject: Subject, setting: Setting, *, streams: int) -> Mapping[str, float]:
    process, port = serve(subject, setting, [setting.sink], bulk=True)
    try:
        before_s = process.cpu_s()
        carried = load_bulk(port, streams, setting.duration_s, setting.places.load)
        used_s = process.cpu_s() - before_s
    finally:
        process.stop()
    gb = carried / 1e9
    return {"cpu_s_per_gb": used_s / gb, "gbit_s": gb * 8 / setting.duration_s}


def _take_mixed(subject: Subject, setting: Setting) -> Mapping[str, float]:
    process, port = serve(subject, setting, setting.endpoints)
    load = setting.places.load

    def seen() -> Answers:
        return load_requests(port, 64, setting.duration_s, load)

    try:
        load_requests(port, 64, WARM_UP_S, load)
        alone = seen()
        with steady_bulk(port, _BULK_RATE_MIB_S, setting.directory, load):
            beside = seen()
    finally:
        process.stop()
    return {
        "p99_rise_us": max(beside.p99_us - alone.p99_us, _LEAST_RISE_US),
        "p99_alone_us": alone.p99_us,
        "p99_beside_us": beside.p99_us,
    }


def _take_idle_sessions(subject: Subject, setting: Setting) -> Mapping[str, float]:
    process, port = serve(subject, setting, setting.endpoints)
    try:
        with idle_sessions(port, _WARM_UP_SESSIONS):
            pass
        bytes_before, descriptors_before = process.pss_bytes(), process.descriptors()
        with idle_sessions(port, setting.sessions):
            grown = process.pss_bytes() - bytes_before
            opened = process.descriptors() - descriptors_before
    finally:
        process.stop()
    return {
        "bytes_per_session": grown / setting.sessions,
        "descriptors": opened / setting.sessions,
    }


def _take_idle_gateway(subject: Subject, setting: Setting) -> Mapping[str, float]:
    process, port = serve(subject, setting, setting.endpoints)
    try:
        first_byte_s(process, port, _START_LIMIT_S)
        return {"pss_mb": process.pss_bytes() / 1e6}
    finally:
        process.stop()


def _take_start(subject: Subject, setting: Setting) -> Mapping[str, float]:
    process, port = subject.start(setting.endpoints, setting.directory, cpus=setting.places.subject)
    try:
        return {"ms": first_byte_s(process, port, _START_LIMIT_S) * 1e3}
    finally:
        process.stop()


CPU = Metric("cpu_us", "CPU, us", chart=True)
REQUESTS = (
    CPU,
    Metric("rate", "per second", 0),
    Metric("p50_us", "p50, us", 0),
    Metric("p99_us", "p99, us", 0),
)
_BULK = (Metric("cpu_s_per_gb", "CPU, s/GB", 3, chart=True), Metric("gbit_s", "Gbit/s"))

MEASURES = (
    Measure(
        "requests-64",
        "round trip, 64 sessions",
        REQUESTS,
        lambda subject, setting: take_requests(subject, setting, sessions=64),
    ),
    Measure(
        "requests-1",
        "round trip, one session",
        REQUESTS,
        lambda subject, setting: take_requests(subject, setting, sessions=1),
    ),
    Measure(
        "connections",
        "connection: connect, one round trip, close",
        (CPU, Metric("rate", "per second", 0)),
        lambda subject, setting: take_requests(subject, setting, sessions=64, reconnect=True),
    ),
    Measure(
        "bulk-1",
        "gigabyte, one stream",
        _BULK,
        lambda subject, setting: _take_bulk(subject, setting, streams=1),
    ),
    Measure(
        "bulk-8",
        "gigabyte, eight streams",
        _BULK,
        lambda subject, setting: _take_bulk(subject, setting, streams=8),
    ),
    Measure(
        "mixed",
        "64 sessions beside a bulk stream of 200 MiB/s",
        (
            Metric("p99_rise_us", "rise of p99, us", 0),
            Metric("p99_alone_us", "p99 alone, us", 0),
            Metric("p99_beside_us", "p99 beside, us", 0),
        ),
        _take_mixed,
    ),
    Measure(
        "idle-sessions",
        "idle session",
        (Metric("bytes_per_session", "bytes", 0, chart=True), Metric("descriptors", "descriptors")),
        _take_idle_sessions,
    ),
    Measure("idle-gateway", "idle proxy", (Metric("pss_mb", "memory, MB"),), _take_idle_gateway),
    Measure("start", "start, exec to first byte", (Metric("ms", "ms", 0),), _take_start),
)
