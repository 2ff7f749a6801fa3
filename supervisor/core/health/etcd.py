"""What to ask an etcd member about its health, and what its answers mean.

An answer about the member alone is preferred to one that makes the cluster agree (a quorum read):
many hosts ask often. What a member can be asked depends on its version and on the port:

- ``/v3/maintenance/status``, from 3.4 on, at the clients' port: the member says its version, its
  leader, whether it is a learner, and the alarms, without reading anything. A member may refuse it:
  without its JSON gateway, or with authentication in versions after 3.6.
- ``/v3/kv/range``, there, too: a read of what the member holds, without the quorum.
- ``/health``, also at the metrics' port: alarms, the leader, and a read with the quorum. In 3.5
  ``serializable=true`` takes the leader and the quorum out of it. ``exclude=NOSPACE`` takes that
  alarm out, in some releases that of one member only.
- ``/readyz``, in 3.6 and the last releases of 3.4 and 3.5: the alarm CORRUPT, a read without and
  one with the quorum, and in 3.6 whether the member is a learner.
- ``/metrics``, 150 kB: the version, and whether the member is a learner, at the metrics' port, too.

A member without space still answers reads: it is degraded, and not unhealthy.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from dataclasses import field, replace

from gateway.core.records import dataclass
from supervisor.core.health.probing import fault, reason_of
from supervisor.core.json_object import read_number, read_object

STATUS = "/v3/maintenance/status"
RANGE, NOTHING = "/v3/kv/range", b'{"key":"AA==","serializable":true}'
"""A key that nobody has: one zero byte."""

HEALTH = "/health"
READYZ = "/readyz?exclude=linearizable_read"
METRICS = "/metrics"

BODY_BYTES = 64 * 1024
METRICS_BYTES = 4 * 1024 * 1024

METRICS_EVERY_S = 600.0
"""How seldom the metrics are asked for what changes only with another process or a promotion."""

ELECTION_S = 1.0
"""etcd's usual election timeout: without a leader for less than this is no failure."""

RETRY_S = 0.2
"""Reads that were under way when the leader changed fail; the next ones do not."""

NO_LEADER = "RAFT NO LEADER"
NOSPACE, CORRUPT = "NOSPACE", "CORRUPT"
LEARNER = "the member is a learner"
NOT_ETCD = 'no "health" in the answer, as etcd gives it'

MAX_VERSION = 64
MAX_REASON = 200
"""Characters shown of what an endpoint says of itself: it may be no etcd."""

_ALARM = r"\balarm:([A-Z]+)"
_METRIC = rb"(?m)^etcd_server_(has_leader|is_learner|version)(\{[^}]*\})? (\d+)"


@dataclass(frozen=True, slots=True)
class Question:
    """A GET, or with a ``body`` a POST of JSON; to be asked ``after_s`` seconds from now."""

    path: str
    body: bytes = b""
    max_bytes: int = BODY_BYTES
    after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What earlier answers taught of a member: its version, its cluster (0 if it does not say),
    and what it need not be asked for."""

    version: str | None = None
    cluster_id: int = 0
    has_status: bool = True
    has_readyz: bool = True
    learner: bool = False
    metrics_at: float = float("-inf")


@dataclass(frozen=True, slots=True)
class Finding:
    """What one inquiry found: ``error`` is empty if the member is healthy.

    ``degraded``: it is healthy, but this is wrong with it.
    """

    known: Known
    error: str = ""
    degraded: str = ""


Inquiry = Generator[Question, Answer, Finding]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Status:
    """What a member says of itself."""

    version: str | None
    cluster_id: int
    has_leader: bool
    learner: bool
    alarms: frozenset[str]

    @property
    def error(self) -> str:
        if not self.has_leader:
            return NO_LEADER
        if self.learner:
            return LEARNER
        return f"ALARM {CORRUPT}" if CORRUPT in self.alarms else ""


@dataclass(frozen=True, slots=True)
class _Metrics:
    """What the metrics say; None where they do not."""

    values: dict[str, int] = field(default_factory=dict)
    version: str | None = None


def inquire(known: Known, *, now: float, patience_s: float = ELECTION_S) -> Inquiry:
    """Ask until it is clear whether the member is healthy; ``now`` is of the monotonic clock.

    A member without a leader is asked again after ``patience_s``.
    """
    status = None
    if known.has_status:
        answer = yield Question(STATUS, b"{}")
        status = _read_status(answer)
        if status is None and (400 <= answer.status < 500 or answer.status == 501):
            known = replace(known, has_status=False)
        if status is not None and not status.has_leader:
            status = _read_status((yield Question(STATUS, b"{}", after_s=patience_s))) or status
    if status is None:
        return (yield from _ask_without_status(known, now, patience_s))
    if status.version != known.version:
        known = replace(known, version=status.version, has_readyz=True)
    known = replace(known, cluster_id=status.cluster_id)
    if status.error:
        return Finding(known, status.error)
    return (yield from _ask_for_a_read(known, NOSPACE if NOSPACE in status.alarms else ""))


def _ask_for_a_read(known: Known, degraded: str) -> Inquiry:
    """The member has a leader; whether it can read what it holds."""
    if known.has_readyz:
        answer = yield from _read(Question(READYZ))
        if answer.status != 404:
            return Finding(known, _readyz_fault(answer), degraded)
        known = replace(known, has_readyz=False)
    answer = yield from _read(Question(RANGE, NOTHING))
    return Finding(known, _range_fault(answer), degraded)


def _read(question: Question) -> Generator[Question, Answer, Answer]:
    """An answer that comes from reading; once more if the reading failed."""
    answer = yield question
    if answer.status >= 500 and "ALARM" not in reason_of(answer.body):
        answer = yield replace(question, after_s=RETRY_S)
    return answer


def _ask_without_status(known: Known, now: float, patience_s: float) -> Inquiry:
    """What the metrics' port tells, too; with a quorum read, which alone tells of the leader."""
    answer = yield from _read(Question(HEALTH))
    error, degraded = _health_fault(answer), ""
    if error == NO_LEADER:
        answer = yield Question(HEALTH, after_s=patience_s)
        error = _health_fault(answer)
    if error and _may_be(NOSPACE, answer):
        answer = yield Question(f"{HEALTH}?exclude={NOSPACE}")
        error = _health_fault(answer)
        if not error or NOSPACE in error:  # of another member, which the exclusion left
            error, degraded = "", NOSPACE
    if error and reason_of(answer.body):
        return Finding(known, error)
    if not error and known.has_readyz:
        answer = yield from _read(Question(READYZ))
        if answer.status == 404:
            known = replace(known, has_readyz=False)
        elif readyz := _readyz_fault(answer):
            return Finding(known, readyz)
    if error or known.learner or now - known.metrics_at >= METRICS_EVERY_S:
        metrics = _read_metrics((yield Question(METRICS, max_bytes=METRICS_BYTES)))
        known = _learn(known, metrics, now)
        if error and metrics.values.get("has_leader") == 0:
            answer = yield Question(HEALTH, after_s=patience_s)
            error = _health_fault(answer) and NO_LEADER
    return Finding(known, LEARNER if known.learner else error, degraded)


def _learn(known: Known, metrics: _Metrics, now: float) -> Known:
    """With another version, another process answers: it may serve what the one before did not."""
    other = None not in (known.version, metrics.version) and known.version != metrics.version
    return replace(
        known,
        version=metrics.version or known.version,
        learner=metrics.values.get("is_learner") == 1,
        metrics_at=now,
        has_readyz=known.has_readyz or other,
    )


def _read_status(answer: Answer) -> _Status | None:
    document = read_object(answer.body)
    if answer.status != 200 or "header" not in document:
        return None
    header, version, errors = document["header"], document.get("version"), document.get("errors")
    texts = [str(each) for each in errors] if isinstance(errors, list) else []
    return _Status(
        version=version[:MAX_VERSION] if isinstance(version, str) else None,
        cluster_id=max(0, read_number(header.get("cluster_id"))) if isinstance(header, dict) else 0,
        has_leader=str(document.get("leader", "0")) != "0",
        learner=document.get("isLearner") is True,
        alarms=frozenset(name for text in texts for name in re.findall(_ALARM, text)),
    )


def _health_fault(answer: Answer) -> str:
    """What is wrong with an answer of ``/health``: etcd's own words, if it has any."""
    problem = fault(answer.status, answer.body)
    if problem is not None:
        return reason_of(answer.body) or problem
    return "" if "health" in read_object(answer.body) else NOT_ETCD


def _range_fault(answer: Answer) -> str:
    """What is wrong with a read; with authentication on, that a user is wanted is an answer."""
    if answer.status in (200, 400, 401, 403):
        return ""
    document = read_object(answer.body)
    said = document.get("message") or document.get("error")
    return said[:MAX_REASON] if isinstance(said, str) else f"HTTP status {answer.status}"


def _may_be(alarm: str, answer: Answer) -> bool:
    """Whether the member may be unhealthy for this alarm; etcd 3.4 gives no reason."""
    reason = reason_of(answer.body)
    return alarm in reason or ("health" in read_object(answer.body) and not reason)


def _readyz_fault(answer: Answer) -> str:
    """The checks that failed: lines as ``[-]serializable_read failed: ...``."""
    if answer.status == 200:
        return ""
    text = answer.body.decode("utf-8", "replace")
    failed = re.findall(r"^\[-\](.{1,200})", text, re.MULTILINE)
    if any(each.startswith("non_learner") for each in failed):
        return LEARNER
    return "; ".join(failed)[:MAX_REASON] or f"HTTP status {answer.status}"


def _read_metrics(answer: Answer) -> _Metrics:
    if answer.status != 200:
        return _Metrics()
    values, version = {}, None
    for name, labels, number in re.findall(_METRIC, answer.body):
        values[name.decode()] = int(number)
        if match := re.search(rb'server_version="([^"]{1,64})"', labels):
            version = match[1].decode("ascii", "replace")
    return _Metrics(values, version)
