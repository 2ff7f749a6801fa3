"""When the log tells of clients that were turned away."""

from __future__ import annotations

from gateway.core.counters import End, WorkerCounters
from gateway.core.reports import report_of
from supervisor.core.admin.totals import Totals
from supervisor.core.admin.turned_away import Told, TurnedAway
from supervisor.core.workers.worker_id import WorkerId


def told(away: TurnedAway, counts: dict[str, int], now: float) -> list[Told]:
    return list(away.tell(counts, {"denied": "10.0.0.1:5"}, now))


def test_at_once_and_then_once_a_minute() -> None:
    """The first client is told of at once, those of the next minute together."""
    away = TurnedAway({"denied": 5})
    assert told(away, {"denied": 5}, 0.0) == []
    assert told(away, {"denied": 7}, 1.0) == [Told("clients denied", 2, "10.0.0.1:5")]
    assert told(away, {"denied": 1000}, 60.9) == []
    assert told(away, {"denied": 1007}, 61.0) == [Told("clients denied", 1000, "10.0.0.1:5")]
    assert told(away, {"denied": 1007}, 500.0) == []


def test_each_reason_has_its_own_minute() -> None:
    """A client without a header is told of while denied ones are waited with."""
    away = TurnedAway({})
    assert len(told(away, {"denied": 1}, 0.0)) == 1
    (line,) = told(away, {"denied": 2, "proxy-header": 1}, 1.0)
    assert line == Told("clients without a PROXY protocol header", 1, "")


def report(*clients: str) -> WorkerCounters:
    counters = WorkerCounters()
    for client in clients:
        counters.turn_away(End.DENIED, client)
    return counters


def test_workers_are_added_up() -> None:
    """The count is of all workers, dead ones too, and the last client is the last one reported."""
    totals = Totals()

    def take(slot: int, counters: WorkerCounters) -> None:
        figures = {"snapshot_version": 1, "loop_lag_s": 0.0, "rss_bytes": 1, "cpu_s": 0.0}
        totals.report(WorkerId(slot, 1), report_of(counters, **figures))  # type: ignore[arg-type]

    take(0, report("a", "b"))
    take(1, report("c"))
    take(0, report("a", "b"))
    assert totals.turned_away() == {"denied": 3}
    assert totals.last_turned_away == {"denied": "c"}
    totals.gone(WorkerId(0, 1))
    assert totals.turned_away() == totals.sums().turned_away == {"denied": 3}
    assert Totals.restore(totals.export()).turned_away() == {"denied": 3}
