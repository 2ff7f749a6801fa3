"""Measures of many sessions, of what a new client of etcd costs, and of a neighbour on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.benchmarks.loads import load_streams
from tests.benchmarks.measures import (
    CPU,
    REQUESTS,
    WARM_UP_S,
    Measure,
    Metric,
    Setting,
    serve,
    take_requests,
)
from tests.benchmarks.processes import BenchmarkError, Process
from tests.benchmarks.subjects import Subject
from tests.support import free_port

_BUSY = 64
_FAN_OUT = 1_000
_BURST = 1_000
_LOAD_LIMIT_S = 120.0
_NEIGHBOUR = "block = bytes(1 << 24)\nwhile True:\n    bytearray(block)\n"
"""Writes 16 MB again and again: it takes its share of the CPU, and the caches with it."""


class Crowd:
    """A load of :mod:`tests.benchmarks.crowds` that runs on the CPUs of the load."""

    def __init__(self, setting: Setting, name: str, port: int, sessions: int) -> None:
        cpus = ",".join(map(str, sorted(setting.places.load)))
        program = [sys.executable, "-m", "tests.benchmarks.crowds", name]
        argv = ["taskset", "-c", cpus, *program, str(port), str(sessions), str(setting.duration_s)]
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )

    def await_line(self, expected: str) -> None:
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != expected:
            self.result()
            raise BenchmarkError(f"the load was not {expected}")

    def go_on(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def result(self) -> Mapping[str, float]:
        try:
            out, err = self._process.communicate(timeout=_LOAD_LIMIT_S)
        except subprocess.TimeoutExpired as error:
            self.close()
            raise BenchmarkError("the load did not end") from error
        if self._process.returncode:
            raise BenchmarkError(f"the load failed: {err.strip().splitlines()[-1:]}")
        seen: Mapping[str, float] = json.loads(out.strip().splitlines()[-1])
        return seen

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()


@contextmanager
def _crowd(setting: Setting, name: str, port: int, sessions: int) -> Iterator[Crowd]:
    crowd = Crowd(setting, name, port, sessions)
    try:
        yield crowd
    finally:
        crowd.close()


def _take_sparse(subject: Subject, setting: Setting, *, sessions: int) -> Mapping[str, float]:
    """Round trips of sessions that ask once a second each."""
    process, port = serve(subject, setting, setting.endpoints)
    try:
        with _crowd(setting, "sparse", port, sessions) as crowd:
            crowd.await_line("ready")
            before_s = process.cpu_s()
            crowd.go_on()
            count = crowd.result()["count"]
            used_s = process.cpu_s() - before_s
    finally:
        process.stop()
    return {"cpu_us": used_s / count * 1e6, "rate": count / setting.duration_s}


def _take_burst(subject: Subject, setting: Setting) -> Mapping[str, float]:
    process, port = serve(subject, setting, setting.endpoints)
    try:
        with _crowd(setting, "burst", port, _BURST) as crowd:
            crowd.result()
        before_s = process.cpu_s()
        with _crowd(setting, "burst", port, _BURST) as crowd:
            seen = crowd.result()
        used_s = process.cpu_s() - before_s
    finally:
        process.stop()
    return {"last_ms": seen["last_s"] * 1e3, "cpu_us": used_s / seen["count"] * 1e6}


def _take_fan_out(subject: Subject, setting: Setting) -> Mapping[str, float]:
    # The subject has to be in front of the load's own endpoint, which is the port after it.
    port = free_port()
    with _crowd(setting, "fan-out", port, _FAN_OUT) as crowd:
        crowd.await_line("ready")
        process, _ = subject.serve(
            [f"127.0.0.1:{port + 1}"], setting.directory, cpus=setting.places.subject, port=port
        )
        try:
            crowd.go_on()
            crowd.await_line("connected")
            before_s = process.cpu_s()
            crowd.go_on()
            seen = crowd.result()
            used_s = process.cpu_s() - before_s
        finally:
            process.stop()
    return {"last_ms": seen["last_s"] * 1e3, "cpu_us": used_s / seen["count"] * 1e6}


def _take_handshakes(subject: Subject, setting: Setting) -> Mapping[str, float]:
    """What a new client of etcd costs: a TLS handshake with the endpoint, and one request."""
    return take_requests(
        subject,
        setting,
        endpoints=setting.tls_endpoints,
        sessions=16,
        reconnect=True,
        scheme="https",
    )


def _take_streams(subject: Subject, setting: Setting) -> Mapping[str, float]:
    """HTTP/2 as etcd's clients speak it: ten sessions of 100 streams each."""
    process, port = serve(subject, setting, setting.http2_endpoints)
    cpus = setting.places.load
    try:
        load_streams(port, WARM_UP_S, cpus)
        before_s = process.cpu_s()
        count = load_streams(port, setting.duration_s, cpus)
        used_s = process.cpu_s() - before_s
    finally:
        process.stop()
    return {"cpu_us": used_s / count * 1e6, "rate": count / setting.duration_s}


def _take_neighbour(subject: Subject, setting: Setting) -> Mapping[str, float]:
    """Round trips while another process uses the subject's CPU and its caches."""
    argv = [sys.executable, "-c", _NEIGHBOUR]
    log = setting.directory / "neighbour.log"
    neighbour = Process("neighbour", argv, cpus=setting.places.subject, log=log)
    try:
        return take_requests(subject, setting, endpoints=setting.endpoints, sessions=_BUSY)
    finally:
        neighbour.stop()


_LAST = (Metric("last_ms", "until the last, ms"), CPU)

MANY_MEASURES = (
    *(
        Measure(
            f"requests-{count}",
            f"round trip, {count:,} busy sessions",
            REQUESTS,
            partial(take_requests, sessions=count),
        )
        for count in (2_000, 4_000, 9_000)
    ),
    *(
        Measure(
            f"open-{count}",
            f"round trip, {_BUSY} busy of {count:,} open sessions",
            REQUESTS,
            partial(take_requests, sessions=_BUSY, idle=count - _BUSY),
        )
        for count in (1_000, 5_000, 9_000)
    ),
    *(
        Measure(
            f"sparse-{count}",
            f"round trip, {count:,} sessions that ask once a second",
            REQUESTS[:2],
            partial(_take_sparse, sessions=count),
        )
        for count in (100, 1_000, 5_000, 9_000)
    ),
    Measure(
        "handshakes", "new client: TLS handshake and one request", REQUESTS[:2], _take_handshakes
    ),
    Measure("streams", "request, HTTP/2, ten sessions of 100 streams", REQUESTS[:2], _take_streams),
    Measure("fan-out", f"one write to each of {_FAN_OUT:,} clients", _LAST, _take_fan_out),
    Measure("burst", f"{_BURST:,} clients at once, one request each", _LAST, _take_burst),
    Measure(
        "neighbour", "round trip, 64 sessions, a neighbour on the CPU", REQUESTS, _take_neighbour
    ),
)
