"""What people see first: one sentence, what is wrong on top, and as many rows as fit."""

from __future__ import annotations

from typing import Any

import pytest

from supervisor.core.admin import digest


def endpoint(name: str, state: str = "active", priority: int = 0) -> dict[str, Any]:
    return {"endpoint": name, "state": state, "priority": priority, "last_error": None}


def worker(slot: int, state: str = "ready", *, hangs: bool = False, gen: int = 1) -> dict[str, Any]:
    return {"slot": slot, "gen": gen, "state": state, "hangs": hangs}


def document(**keys: Any) -> dict[str, Any]:
    """A status document with what the digest reads."""
    return {
        "state": "ready",
        "endpoints": [endpoint("a:1")],
        "workers": [worker(0), worker(1)],
        "slots": 2,
        "totals": {"sessions": 1},
        "unready": [],
        "discovery": {"last_error": None, "refused": {}},
        "reload": {"last_result": None, "last_error": None},
        **keys,
    }


def test_one_sentence() -> None:
    """Endpoints, workers and sessions; endpoints that left DNS do not count."""
    assert digest.sentence(document()) == (
        "ready: 1 of 1 endpoints active, 2 of 2 workers ready, 1 session"
    )
    some = [endpoint("a:1"), endpoint("b:1", "inactive"), endpoint("c:1", "removed")]
    workers = [worker(0), worker(0, "draining", gen=2), worker(1, "starting", hangs=True)]
    assert digest.sentence(
        document(state="degraded", endpoints=some, workers=workers, totals={"sessions": 12})
    ) == ("degraded: 1 of 2 endpoints active, 1 of 2 workers ready, 12 sessions")


def test_a_drain_says_what_is_left() -> None:
    """Sessions and the deadline, if the gateway tells it."""
    left = document(state="draining", totals={"sessions": 120})
    assert digest.sentence(left) == "draining: 120 sessions left"
    assert digest.sentence({**left, "drain_deadline_s": 23.6}) == (
        "draining: 120 sessions left, cut in 24 s"
    )
    assert digest.sentence({**left, "drain_deadline_s": -1.0}).endswith("cut in 0 s")


def test_problems_are_spelled_out() -> None:
    """A line for each thing that is wrong with the whole; a drain is in the sentence."""
    assert digest.problems(document()) == []
    assert digest.problems(
        document(
            unready=["draining", "no endpoint is active"],
            foreign_listeners=[{"uid": 0, "address": "127.0.0.1:1"}],
            discovery={
                "last_error": "timeout",
                "member_sync": {"last_error": "HTTP status 401"},
                "refused": {},
            },
            reload={"last_result": "failed", "last_error": "no such file"},
        )
    ) == [
        "not ready: no endpoint is active",
        "another program (uid 0) listens on 127.0.0.1:1 and takes clients",
        "discovery: timeout",
        "member sync: HTTP status 401",
        "the last reload failed: no such file",
    ]
    in_vain = {"last_result": "complete", "needs_restart": ["--listen-addr", "--workers"]}
    assert digest.problems(document(reload=in_vain)) == [
        "changed in the configuration, used after a restart: --listen-addr, --workers"
    ]
    failed = {"last_result": "failed", "last_error": None}
    assert digest.problems(document(reload=failed)) == ["the last reload failed: see the log"]
    assert digest.problems(document(reload=failed | {"refused": False})) == []


def test_endpoints_that_are_wrong_come_first() -> None:
    """Inactive, refused, draining, removed, then the rest; by priority and number in a name."""
    states = {"d:1": "removed", "c:1": "draining", "a10:1": "active", "a9:1": "active"}
    listed = [endpoint(name, state) for name, state in states.items()]
    listed += [endpoint("b:1", "inactive"), endpoint("z:1", priority=1)]
    listed += [{**endpoint("k:1"), "kept": True}]
    addresses: dict[str, dict[str, Any]] = {
        "10.0.0.1": {"state": "active", "last_error": None},
        "10.0.0.2": {"state": "inactive", "last_error": "connection refused"},
        "10.0.0.3": {"state": "inactive", "last_error": None},
    }
    partly = {**endpoint("p:1"), "address_states": addresses}
    assert digest.inactive_addresses(partly) == {
        "10.0.0.2": "connection refused",
        "10.0.0.3": "inactive",
    }
    listed += [partly, {**endpoint("n:1"), "degraded": "NOSPACE"}]
    refused = {"x:1": "no TLS", "b:1": "no TLS any more"}
    found = document(endpoints=listed, discovery={"last_error": None, "refused": refused})
    ordered = digest.order_endpoints(found)
    names = [each["endpoint"] for each in ordered]
    assert names == ["b:1", "x:1", "c:1", "k:1", "p:1", "n:1", "d:1", "a9:1", "a10:1", "z:1"]
    assert ordered[1]["last_error"] == "no TLS"


def test_workers_that_are_wrong_come_first() -> None:
    """Hanging, waiting, starting, draining, then ready ones by slot."""
    workers = [
        worker(1),
        worker(0),
        worker(2, "draining"),
        worker(2, gen=2),
        worker(3, "backoff"),
        worker(4, "starting", hangs=True),
    ]
    ordered = digest.order_workers(document(workers=workers))
    assert [each["slot"] for each in ordered] == [4, 3, 2, 0, 1, 2]
    assert digest.count_wrong(map(digest.word_for_worker, ordered)) == 3


@pytest.mark.parametrize(
    ("room", "wanted", "wrong", "given"),
    [
        (100, (40, 16), (6, 0), [40, 16]),
        (20, (40, 16), (6, 0), [19, 1]),
        (20, (40, 16), (0, 4), [16, 4]),
        (20, (40, 16), (30, 4), [19, 1]),
        (1, (40, 16), (6, 0), [1, 1]),
        (5, (0, 16), (0, 0), [0, 5]),
    ],
)
def test_rows_are_shared(
    room: int, wanted: tuple[int, int], wrong: tuple[int, int], given: list[int]
) -> None:
    """Each table has a row, then what is wrong goes first, then the rest in order."""
    assert digest.share_rows(room, wanted, wrong) == given


def test_the_rest_is_counted() -> None:
    """A table that was cut says what is missing."""
    assert digest.say_rest(["active"] * 20) == "... 20 more, all active"
    assert digest.say_rest(["draining", "active"]) == "... 2 more: 1 draining, 1 active"
