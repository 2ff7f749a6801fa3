"""Chaos for a minute, always the same; `make stress` and `make chaos` have ten, by chance."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests.chaos.__main__ import report, run
from tests.chaos.records import Disturbance, Records, Stream, Write
from tests.etcd import needs_etcd
from tests.long_tests import LONG
from tests.stress.test_disturbances import needs_namespaces

SECONDS = 600.0 if LONG else 60.0
SEED = random.SystemRandom().randrange(1 << 32) if LONG else 1


@needs_etcd
@needs_namespaces
@pytest.mark.slow(seconds=70)
@pytest.mark.timeout(1500)
def test_nothing_is_lost_whatever_happens(tmp_path: Path) -> None:
    """No byte, no acknowledged write, no client; and service is back after each disturbance."""
    began_at = time.monotonic()
    records = run(
        tmp_path,
        SECONDS,
        SEED,
        lambda text: print(f"{time.monotonic() - began_at:8.2f} s  {text}"),
    )
    print(report(records))
    assert records.violations == []
    assert any(stream.end == "whole" for stream in records.streams)
    assert any(write.revision for write in records.writes)


def kill(at: float, *, cuts: bool = True, all_down: bool = False) -> Disturbance:
    return Disturbance(
        "a worker is killed", at, cuts=cuts, kills=cuts, all_down=all_down, ended_at=at + 0.2
    )


@pytest.mark.parametrize(
    ("end", "began_at", "wrong"),
    [
        ("whole", 100.0, False),
        ("cut", 100.0, False),
        ("cut", 200.0, True),
        ("early", 100.0, False),
        ("early", 200.0, True),
        ("refused", 100.0, True),
        ("stalled", 100.0, True),
        ("wrong", 100.0, True),
    ],
)
def test_the_checker_knows_what_is_wrong_with_a_stream(
    end: str, began_at: float, wrong: bool
) -> None:
    """A cut is explained by a disturbance of its time that cuts, and nothing else is."""
    records = Records([kill(101.0), kill(201.0, cuts=False)])
    records.judge_stream(Stream(1, began_at, 9, 5, began_at + 2, end))
    assert bool(records.violations) is wrong


def test_the_checker_knows_that_a_dead_endpoint_ends_streams_in_order() -> None:
    """Its kernel does; at whatever age of the stream."""
    dead = Disturbance("a backend is killed", 108.0, hangs_up=True, ended_at=109.0)
    records = Records([dead])
    records.judge_stream(Stream(1, 100.0, 9, 5, 108.1, "early"))
    assert records.violations == []
    records.judge_stream(Stream(1, 90.0, 9, 5, 99.0, "early"))
    assert len(records.violations) == 1


def test_the_checker_knows_when_clients_may_be_closed() -> None:
    """While every endpoint was down, and at no other time."""
    records = Records([kill(101.0, all_down=True), kill(201.0)])
    records.judge_refusal(101.1, "")
    assert records.violations == []
    records.judge_refusal(201.1, "")
    assert len(records.violations) == 1


@pytest.mark.parametrize(
    ("end", "began_at", "wrong"),
    [
        ("answered", 300.0, False),
        ("late", 300.0, False),
        ("cut", 100.0, False),
        ("cut", 300.0, True),
        ("refused", 100.0, True),
    ],
)
def test_the_checker_knows_etcd_from_the_gateway(end: str, began_at: float, wrong: bool) -> None:
    """What etcd answers is never held against the gateway, a connection that fails is."""
    dead = Disturbance("a member is killed", 101.0, kills_member=True, ended_at=102.0)
    records = Records([dead])
    records.judge_connection(Write("w0-1", "a", began_at, ended_at=began_at + 2, end=end))
    assert bool(records.violations) is wrong


def test_the_checker_misses_no_write() -> None:
    """Acknowledged writes are there with their values, and revisions grow; others may be lost."""
    writes = [Write("w0-1", "a", 1.0, 5), Write("w0-2", "b", 2.0), Write("w0-3", "c", 3.0, 7)]
    records = Records(writes=writes)
    records.judge_writes({"w0-1": "a", "w0-3": "c"})
    assert records.violations == []
    records.judge_writes({"w0-1": "other", "w0-2": "b"})
    assert len(records.violations) == 2
    records = Records(writes=[*writes, Write("w0-4", "d", 4.0, 6)])
    records.judge_writes({"w0-1": "a", "w0-3": "c", "w0-4": "d"})
    assert len(records.violations) == 1
