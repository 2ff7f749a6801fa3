"""What an etcd member is asked about its health, and what its answers mean."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import pytest

from supervisor.core.health.etcd import (
    ELECTION_S,
    LEARNER,
    MAX_REASON,
    MAX_VERSION,
    METRICS_EVERY_S,
    NO_LEADER,
    NOT_ETCD,
    RETRY_S,
    Answer,
    Finding,
    Known,
    Question,
    inquire,
)

STATUS = "/v3/maintenance/status"
READ = "/readyz?exclude=linearizable_read"
LOCAL = "/v3/kv/range"
GOOD, NOT_FOUND = Answer(200, b'{"health":"true"}'), Answer(404, b"404 page not found\n")
EMPTY = Answer(200, b'{"header":{"member_id":"7"}}')
KNOWN_34 = Known(version="3.4.23", has_readyz=False)
METRICS_PORT_34 = Known(version="3.4.23", has_status=False, has_readyz=False, metrics_at=0.0)


def status(*errors: str, leader: str = "7", version: str = "3.4.23", **more: object) -> Answer:
    document = {"header": {"member_id": "7"}, "version": version, "leader": leader, **more}
    return Answer(200, json.dumps(document | {"errors": list(errors)}).encode())


def unhealthy(reason: str | None) -> Answer:
    document = {"health": "false"} | ({} if reason is None else {"reason": reason})
    return Answer(503, json.dumps(document).encode())


def metrics(*, version: str = "3.4.23", leader: int = 1, learner: int = 0) -> Answer:
    text = f"""# TYPE etcd_server_has_leader gauge
etcd_server_has_leader {leader}
etcd_server_is_learner {learner}
etcd_server_version{{server_version="{version}"}} 1
go_goroutines 96
"""
    return Answer(200, text.encode())


ALARM = "memberID:7 alarm:NOSPACE "


def play(
    known: Known, answers: Mapping[str, Answer | Sequence[Answer]], *, now: float = 1.0
) -> tuple[Finding, list[Question]]:
    """Answer each question by its path, the same one again if there are no more; what was asked."""
    left = {
        path: [each] if isinstance(each, Answer) else list(each) for path, each in answers.items()
    }
    asked: list[Question] = []
    inquiry = inquire(known, now=now)
    question = next(inquiry)
    while True:
        asked.append(question)
        said = left[question.path]
        try:
            question = inquiry.send(said.pop(0) if len(said) > 1 else said[0])
        except StopIteration as end:
            finding: Finding = end.value
            return finding, asked


def paths(asked: Sequence[Question]) -> list[str]:
    return [each.path for each in asked]


def test_a_member_of_34_is_asked_for_its_status_and_a_read() -> None:
    """What it does not serve is asked for once, and its version is known."""
    finding, asked = play(Known(), {STATUS: status(), READ: NOT_FOUND, LOCAL: EMPTY})
    assert finding == Finding(KNOWN_34)
    assert paths(asked) == [STATUS, READ, LOCAL]
    finding, asked = play(finding.known, {STATUS: status(), LOCAL: EMPTY})
    assert finding == Finding(KNOWN_34)
    assert paths(asked) == [STATUS, LOCAL]


def test_another_version_is_asked_for_everything_again() -> None:
    """A member that was upgraded may serve what the release before did not."""
    finding, _ = play(KNOWN_34, {STATUS: status(version="3.6.1"), READ: Answer(200, b"ok\n")})
    assert finding == Finding(Known(version="3.6.1", has_readyz=True))


def test_a_new_member_is_read_by_readyz() -> None:
    """The checks that failed are the error, in etcd's words."""
    body = b"[+]data_corruption ok\n[-]serializable_read failed: context deadline exceeded\n"
    finding, asked = play(Known(), {STATUS: status(version="3.6.1"), READ: Answer(503, body)})
    assert finding.error == "serializable_read failed: context deadline exceeded"
    assert [each.after_s for each in asked] == [0.0, 0.0, RETRY_S]
    finding, _ = play(Known(), {STATUS: status(), READ: Answer(503, b"")})
    assert finding.error == "HTTP status 503"


def test_a_learner_is_not_used() -> None:
    """By its status, by /readyz of 3.6, and by the metrics."""
    assert play(Known(), {STATUS: status(isLearner=True)})[0].error == LEARNER
    body = b"[-]non_learner failed: member is a learner\n"
    known = Known(has_status=False, metrics_at=0.0)
    assert play(known, {"/health": GOOD, READ: Answer(503, body)})[0].error == LEARNER
    old = Known(has_status=False, has_readyz=False)
    finding, _ = play(old, {"/health": GOOD, "/metrics": metrics(learner=1)})
    assert finding.error == LEARNER
    finding, _ = play(finding.known, {"/health": GOOD, "/metrics": metrics()}, now=2.0)
    assert finding.error == ""


@pytest.mark.parametrize("leader", ["0", ""])
def test_no_leader(leader: str) -> None:
    """A member has the time of an election to get one."""
    gone = status(leader="0") if leader else Answer(200, b'{"header":{}}')
    finding, asked = play(Known(), {STATUS: [gone, gone]})
    assert finding.error == NO_LEADER
    assert [(each.path, each.after_s) for each in asked] == [(STATUS, 0.0), (STATUS, ELECTION_S)]
    finding, _ = play(KNOWN_34, {STATUS: [gone, status()], LOCAL: EMPTY})
    assert finding.error == ""
    finding, _ = play(KNOWN_34, {STATUS: [gone, NOT_FOUND]})
    assert finding.error == NO_LEADER


def test_a_read_that_failed_is_made_again() -> None:
    """Reads under way fail when the leader changes."""
    changed = Answer(503, b'{"message":"etcdserver: leader changed"}')
    finding, _ = play(KNOWN_34, {STATUS: status(), LOCAL: [changed, EMPTY]})
    assert finding.error == ""
    finding, _ = play(KNOWN_34, {STATUS: status(), LOCAL: changed})
    assert finding.error == "etcdserver: leader changed"
    finding, _ = play(KNOWN_34, {STATUS: status(), LOCAL: Answer(503, b"")})
    assert finding.error == "HTTP status 503"


@pytest.mark.parametrize("code", [400, 401, 403])
def test_a_read_that_wants_a_user_is_an_answer(code: int) -> None:
    """With authentication on, nothing can be read without one."""
    refused = Answer(code, b'{"error":"etcdserver: user name is empty"}')
    assert play(KNOWN_34, {STATUS: status(), LOCAL: refused})[0].error == ""


def test_without_space_it_is_degraded() -> None:
    """Whether it reads by itself or by /readyz, which does not mind the alarm."""
    finding, _ = play(KNOWN_34, {STATUS: status(ALARM), LOCAL: EMPTY})
    assert finding == Finding(KNOWN_34, degraded="NOSPACE")
    finding, _ = play(Known(), {STATUS: status(ALARM), READ: Answer(200, b"ok\n")})
    assert (finding.error, finding.degraded) == ("", "NOSPACE")


def test_a_corrupt_cluster_is_not_used() -> None:
    """Neither by the status nor by /health does NOSPACE beside it hide it."""
    both = status(ALARM, "memberID:7 alarm:CORRUPT ")
    assert play(Known(), {STATUS: both})[0].error == "ALARM CORRUPT"
    answers = {
        "/health": unhealthy("ALARM NOSPACE"),
        "/health?exclude=NOSPACE": unhealthy("ALARM CORRUPT"),
    }
    assert play(METRICS_PORT_34, answers)[0] == Finding(METRICS_PORT_34, "ALARM CORRUPT")


@pytest.mark.parametrize("code", [400, 401, 403, 404, 501])
def test_a_member_that_refuses_its_status_is_asked_otherwise(code: int) -> None:
    """At the metrics' port, without JSON gateway, or with authentication on; once."""
    answers = {STATUS: Answer(code, b"no"), "/health": GOOD, READ: NOT_FOUND, "/metrics": metrics()}
    finding, asked = play(Known(), answers, now=5.0)
    known = Known(version="3.4.23", has_status=False, has_readyz=False, metrics_at=5.0)
    assert finding == Finding(known)
    assert paths(asked) == [STATUS, "/health", READ, "/metrics"]
    finding, asked = play(known, answers, now=6.0)
    assert finding == Finding(known)
    assert paths(asked) == ["/health"]
    finding, asked = play(known, answers, now=5.0 + METRICS_EVERY_S)
    assert paths(asked) == ["/health", "/metrics"]


@pytest.mark.parametrize("answer", [Answer(503, b""), Answer(200, b"hello"), Answer(200, b"[1]")])
def test_a_status_that_cannot_be_read_is_asked_for_again(answer: Answer) -> None:
    """It may be better next time; this time the member is asked otherwise."""
    known = Known(has_readyz=False, metrics_at=0.0)
    finding, _ = play(known, {STATUS: answer, "/health": GOOD})
    assert finding == Finding(known)


@pytest.mark.parametrize("reason", [None, "ALARM NOSPACE"])
def test_the_metrics_port_tells_of_space(reason: str | None) -> None:
    """3.4 gives no reason, so the alarm is taken out to see."""
    answers = {"/health": unhealthy(reason), "/health?exclude=NOSPACE": GOOD}
    finding, _ = play(METRICS_PORT_34, answers)
    assert finding == Finding(METRICS_PORT_34, degraded="NOSPACE")


def test_several_members_without_space() -> None:
    """Some releases exclude the alarm of one member and no more."""
    alarm = unhealthy("ALARM NOSPACE")
    finding, _ = play(METRICS_PORT_34, {"/health": alarm, "/health?exclude=NOSPACE": alarm})
    assert finding == Finding(METRICS_PORT_34, degraded="NOSPACE")


def test_the_metrics_port_of_34_tells_of_the_leader() -> None:
    """Its /health says only that something is wrong, so the metrics are asked."""
    wrong = unhealthy(None)
    answers = {
        "/health": wrong,
        "/health?exclude=NOSPACE": wrong,
        "/metrics": metrics(leader=0),
    }
    finding, asked = play(METRICS_PORT_34, answers)
    assert finding.error == NO_LEADER
    assert asked[-1] == Question("/health", after_s=ELECTION_S)
    finding, _ = play(METRICS_PORT_34, answers | {"/health": [wrong, wrong, GOOD]})
    assert finding.error == ""
    finding, _ = play(METRICS_PORT_34, answers | {"/metrics": metrics()})
    assert finding.error == "HTTP status 503"
    finding, _ = play(METRICS_PORT_34, answers | {"/metrics": NOT_FOUND})
    assert finding.error == "HTTP status 503"
    assert finding.known.version == "3.4.23"


def test_the_metrics_port_of_35_tells_of_the_leader() -> None:
    """And a leader that comes in time is enough."""
    gone = unhealthy(NO_LEADER)
    finding, _ = play(METRICS_PORT_34, {"/health": gone})
    assert finding.error == NO_LEADER
    finding, _ = play(METRICS_PORT_34, {"/health": [gone, gone, GOOD]})
    assert finding.error == ""


def test_another_version_in_the_metrics() -> None:
    """What the process before did not serve is asked for again, next time."""
    known = Known(version="3.4.23", has_status=False, has_readyz=False)
    answers = {"/health": GOOD, "/metrics": metrics(version="3.6.1")}
    finding, _ = play(known, answers)
    assert finding.known == Known(version="3.6.1", has_status=False, metrics_at=1.0)


def test_readyz_without_status() -> None:
    """The checks that failed are the error; those that passed need no more."""
    known = Known(has_status=False, metrics_at=0.0)
    body = b"[-]data_corruption failed: alarm activated: CORRUPT\n"
    finding, _ = play(known, {"/health": GOOD, READ: Answer(503, body)})
    assert finding.error == "data_corruption failed: alarm activated: CORRUPT"
    finding, _ = play(known, {"/health": GOOD, READ: Answer(200, b"ok\n")})
    assert finding == Finding(known)


def test_what_is_no_etcd_is_not_healthy() -> None:
    """A web server that knows none of the pages."""
    answers = {STATUS: NOT_FOUND, "/health": NOT_FOUND, "/metrics": NOT_FOUND}
    assert play(Known(), answers)[0].error == "HTTP status 404"


@pytest.mark.parametrize("body", [b"<html>welcome</html>", b"", b"null", b'{"status":"ok"}', b"["])
def test_a_server_that_answers_everything_is_no_etcd(body: bytes) -> None:
    """A page for every path says nothing of a leader."""
    page = Answer(200, body)
    answers = dict.fromkeys((STATUS, "/health", READ, "/metrics"), page)
    assert play(Known(), answers)[0].error == NOT_ETCD


def test_what_an_endpoint_says_is_cut() -> None:
    """A version or a list of failures of any length would fill the tables that show it."""
    finding, _ = play(KNOWN_34, {STATUS: status(version="3" * 60_000), LOCAL: EMPTY, READ: EMPTY})
    assert finding.known.version == "3" * MAX_VERSION
    lines = Answer(503, b"[-]a failed\n" * 5_000)
    finding, _ = play(Known(has_status=False, metrics_at=0.0), {"/health": GOOD, READ: lines})
    assert len(finding.error) == MAX_REASON


@pytest.mark.parametrize(
    ("header", "cluster_id"),
    [
        ({"cluster_id": "14841639068965178418"}, 14841639068965178418),
        ({"cluster_id": 7}, 7),
        ({"cluster_id": "-7"}, 0),
        ({"cluster_id": "٣"}, 0),
        ({"cluster_id": None}, 0),
        ({}, 0),
        ([], 0),
    ],
)
def test_a_member_says_of_which_cluster_it_is(header: object, cluster_id: int) -> None:
    """As a text of digits; anything else is as if it said nothing."""
    finding, _ = play(KNOWN_34, {STATUS: status(header=header), LOCAL: EMPTY})
    assert (finding.error, finding.known.cluster_id) == ("", cluster_id)
