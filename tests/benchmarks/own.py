"""What is measured on etcd-gateway alone: many workers, many sessions, many endpoints."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping

from gateway.core import messages, wire
from gateway.core.endpoint import Endpoint
from gateway.core.table import Table
from gateway.ingress.handoff import Handoff
from gateway.scoreboard import Scoreboard
from supervisor.core.admin.totals import Totals
from supervisor.core.workers.worker_id import WorkerId
from tests.benchmarks.loads import first_byte_s, load_requests
from tests.benchmarks.measures import Measure, Metric, Setting
from tests.benchmarks.processes import BenchmarkError, Process
from tests.benchmarks.subjects import Subject

_WORKERS = (1, 4, 16, 64)
_SESSIONS = (10, 100, 1_000, 9_000)  # the last: what a limit of 20,000 descriptors allows
_ENDPOINTS = (3, 30, 300, 3_000)
_START_LIMIT_S = 60.0
_LEAST_LOAD_S = 5  # 9,000 sessions need more than a second to begin
_SETTLE_S = 2.0  # two reports of every worker
_HANDED = 20_000
_BATCH = 8
_PICKS = 10_000
_SIMULATED = 128


def _serve_quietly(subject: Subject, setting: Setting, workers: int, endpoints: int) -> Process:
    """The gateway with all its workers running and at rest."""
    process, port = subject.serve(
        setting.many_endpoints[:endpoints],
        setting.directory,
        cpus=setting.places.subject,
        workers=workers,
    )
    process.wait_for(lambda: len(process.tree()) > workers, _START_LIMIT_S, "workers")
    first_byte_s(process, port, _START_LIMIT_S)
    time.sleep(_SETTLE_S)
    return process


def _take_idle_workers(subject: Subject, setting: Setting) -> Mapping[str, float]:
    sample = {}
    for workers in _WORKERS:
        process = _serve_quietly(subject, setting, workers, 3)
        try:
            sample[f"mb_{workers}"] = process.pss_bytes() / 1e6
            before_s, began_at = process.cpu_s(), time.monotonic()
            time.sleep(_SETTLE_S)
            used_s = process.cpu_s() - before_s
            sample[f"cpu_share_{workers}"] = 100 * used_s / (time.monotonic() - began_at)
        finally:
            process.stop()
    most, least = _WORKERS[-1], _WORKERS[0]
    grown = sample[f"mb_{most}"] - sample[f"mb_{least}"]
    return {"mb_per_worker": grown / (most - least), **sample}


def _take_start(subject: Subject, setting: Setting) -> Mapping[str, float]:
    process, port = subject.start(
        setting.endpoints, setting.directory, cpus=setting.places.subject, workers=16
    )
    try:
        return {"ms": first_byte_s(process, port, _START_LIMIT_S) * 1e3}
    finally:
        process.stop()


def _take_endpoint_memory(subject: Subject, setting: Setting) -> Mapping[str, float]:
    sizes = []
    for endpoints in (3, 1_003):
        process = _serve_quietly(subject, setting, 1, endpoints)
        try:
            sizes.append((process.pss_bytes(), process.pss_bytes(children_only=True)))
        finally:
            process.stop()
    (few, few_worker), (many, many_worker) = sizes
    return {
        "worker_kb": (many_worker - few_worker) / 1e3,
        "all_kb": (many - few) / 1e3,
    }


def _take_many_sessions(subject: Subject, setting: Setting) -> Mapping[str, float]:
    """What a long load costs more than a short one: the setup of the sessions is in both."""
    sample = {}
    least_s = max(setting.duration_s, _LEAST_LOAD_S)
    for sessions in _SESSIONS:
        process, port = subject.serve(
            setting.endpoints, setting.directory, cpus=setting.places.subject
        )
        try:
            spent = []
            for duration_s in (least_s, 3 * least_s):
                before_s = process.cpu_s()
                seen = load_requests(port, sessions, duration_s, setting.places.load)
                spent.append((process.cpu_s() - before_s, seen.count))
        finally:
            process.stop()
        (short_s, few), (long_s, many) = spent
        if many <= few:
            raise BenchmarkError(f"no more answers in {3 * least_s} s than in {least_s} s")
        sample[f"cpu_us_{sessions}"] = (long_s - short_s) / (many - few) * 1e6
    return sample


def _take_many_endpoints(subject: Subject, setting: Setting) -> Mapping[str, float]:
    sample = {}
    load = setting.places.load
    for endpoints in _ENDPOINTS:
        process, port = subject.serve(
            setting.many_endpoints[:endpoints], setting.directory, cpus=setting.places.subject
        )
        try:
            load_requests(port, 64, 1, load, reconnect=True)
            before_s = process.cpu_s()
            seen = load_requests(port, 64, setting.duration_s, load, reconnect=True)
            sample[f"cpu_us_{endpoints}"] = (process.cpu_s() - before_s) / seen.count * 1e6
        finally:
            process.stop()
    return sample


def _take_handing_over(_subject: Subject, _setting: Setting) -> Mapping[str, float]:
    """CPU time of both ends in one process: batches are sent, then received, and so on."""
    scoreboard = Scoreboard()
    sender_end, inbox = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    unused_end, unused_inbox = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    carried, kept = socket.socketpair()
    sender = Handoff(scoreboard, row=0, inbox=unused_inbox, peers={1: sender_end})
    receiver = Handoff(scoreboard, row=1, inbox=inbox, peers={})
    sent_s = received_s = 0.0
    for _ in range(_HANDED // _BATCH):
        copies = [carried.dup().detach() for _ in range(_BATCH)]
        began_at = time.process_time()
        for fd in copies:
            sender.send(fd, 1)
        sent_at = time.process_time()
        taken, _ = receiver.receive(_BATCH)
        received_at = time.process_time()
        for fd in taken:
            os.close(fd)
        sent_s += sent_at - began_at
        received_s += received_at - sent_at
    for sock in (sender_end, inbox, unused_end, unused_inbox, carried, kept):
        sock.close()
    scoreboard.close()
    return {"sender_us": sent_s / _HANDED * 1e6, "receiver_us": received_s / _HANDED * 1e6}


def _take_bookkeeping(_subject: Subject, _setting: Setting) -> Mapping[str, float]:
    """CPU time of the parts that grow with endpoints and workers, without processes."""
    sample = {}
    for count in _ENDPOINTS:
        names = [f"node-{i}.example.org:2379" for i in range(count)]
        crowd = tuple(Endpoint(name, ("192.0.2.1",), 2379, 0, 10) for name in names)
        line = wire.encode(messages.Snapshot(1, crowd))
        table = Table(0, 8)
        began_at = time.process_time()
        snapshot = wire.decode(line)
        decoded_at = time.process_time()
        assert isinstance(snapshot, messages.Snapshot)
        table.apply(snapshot)
        applied_at = time.process_time()
        for _ in range(_PICKS):
            table.pick()
        sample[f"pick_us_{count}"] = (time.process_time() - applied_at) / _PICKS * 1e6
        sample[f"decode_ms_{count}"] = (decoded_at - began_at) * 1e3
        sample[f"apply_ms_{count}"] = (applied_at - decoded_at) * 1e3
    for count in (3, 30, 300):
        each = messages.EndpointReport(3, 100, 10, 20, {}, {"connected": 9}, tuple(range(12)), 1.0)
        report = messages.Report(1, 9, 0.0, 1, endpoints={f"e{i}:1": each for i in range(count)})
        line, totals = wire.encode(report), Totals()
        began_at = time.process_time()
        for slot in range(_SIMULATED):
            taken = wire.decode(line)
            assert isinstance(taken, messages.Report)
            totals.report(WorkerId(slot, 1), taken)
        totals.traffic()
        sample[f"master_share_{count}"] = 100 * (time.process_time() - began_at)
    return sample


OWN_MEASURES = (
    Measure(
        "idle-workers",
        "idle gateway with 1, 4, 16, 64 workers",
        (
            Metric("mb_per_worker", "MB per further worker", 2),
            *(Metric(f"mb_{n}", f"MB, {n} workers") for n in _WORKERS),
            *(Metric(f"cpu_share_{n}", f"% of a CPU, {n} workers", 2) for n in _WORKERS),
        ),
        _take_idle_workers,
    ),
    Measure("start-16", "start with 16 workers", (Metric("ms", "ms", 0),), _take_start),
    Measure(
        "endpoint-memory",
        "1,000 endpoints more",
        (Metric("worker_kb", "kB per worker", 0), Metric("all_kb", "kB, master and worker", 0)),
        _take_endpoint_memory,
    ),
    Measure(
        "many-sessions",
        "CPU per round trip as sessions grow",
        tuple(Metric(f"cpu_us_{n}", f"us, {n} sessions") for n in _SESSIONS),
        _take_many_sessions,
    ),
    Measure(
        "many-endpoints",
        "CPU per connection as endpoints grow",
        tuple(Metric(f"cpu_us_{n}", f"us, {n} endpoints") for n in _ENDPOINTS),
        _take_many_endpoints,
    ),
    Measure(
        "handing-over",
        "session handed to another worker",
        (Metric("sender_us", "us, sender"), Metric("receiver_us", "us, receiver")),
        _take_handing_over,
        in_process=True,
    ),
    Measure(
        "bookkeeping",
        "what grows with endpoints and workers",
        (
            *(Metric(f"pick_us_{n}", f"us per selection, {n} endpoints", 2) for n in _ENDPOINTS),
            *(Metric(f"decode_ms_{n}", f"ms to decode {n} endpoints", 2) for n in _ENDPOINTS),
            *(Metric(f"apply_ms_{n}", f"ms to apply {n} endpoints", 2) for n in _ENDPOINTS),
            *(
                Metric(f"master_share_{n}", f"% of a CPU, reports of 128 workers, {n} endpoints")
                for n in (3, 30, 300)
            ),
        ),
        _take_bookkeeping,
        in_process=True,
    ),
)
