"""The list of sessions: questions, pages that miss nothing, and who holds most of them."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.messages import SessionDetail, SessionSlice
from gateway.core.session_state import SessionState
from supervisor.core.admin import session_holders, session_list
from supervisor.core.admin.session_holders import Holders, Process, unit_of
from supervisor.core.admin.session_list import (
    DEFAULT_LIMIT,
    MOST_LIMIT,
    QueryError,
    SessionFold,
    SessionPage,
    SessionQuery,
    Sort,
    read_query,
    write_place,
)
from supervisor.core.workers.worker_id import WorkerId

FIRST, SECOND = WorkerId(0, 1), WorkerId(1, 3)


def rows(first: int, *sessions: tuple[float, int, str]) -> SessionSlice:
    return SessionSlice(
        listing=1,
        first=first,
        last=True,
        started_at=tuple(each[0] for each in sessions),
        moved=tuple(each[1] for each in sessions),
        clients=tuple(each[2] for each in sessions),
    )


def detail(client: str = "127.0.0.1:1", **changed: object) -> SessionDetail:
    whole = SessionDetail(
        row=0, id="7f", client=client, via=None, endpoint="a.test:2379", address="10.0.0.1",
        local="10.0.0.9:5", state=SessionState.OPEN, started_at=90.0, idle_s=2.0, bytes_in=100,
        bytes_out=5000, client_rtt_s=0.001, client_retransmits=0, endpoint_rtt_s=0.002,
        endpoint_retransmits=3,
    )  # fmt: skip
    return dataclasses.replace(whole, **changed)  # type: ignore[arg-type]


def test_a_question_without_parameters_is_for_the_oldest_sessions() -> None:
    """A thousand of them, of all endpoints."""
    assert read_query([]) == SessionQuery(limit=DEFAULT_LIMIT, sort=Sort.AGE)


def test_a_question_may_have_each_parameter_once() -> None:
    """What is asked is what is read, and a place survives its way through a client."""
    place = (-12.0, 5.5, 1, 3, "[2001:db8::1]:5")
    text = write_place(Sort.BYTES, place)
    pairs = [("endpoint", "a:1"), ("limit", "5"), ("sort", "bytes"), ("next", text)]
    assert read_query(pairs) == SessionQuery(endpoint="a:1", limit=5, sort=Sort.BYTES, after=place)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Infra0.Example.com.:2379", "infra0.example.com:2379"),
        ("https://infra0:2379/", "infra0:2379"),
        ("[0:0::1]:2379", "[::1]:2379"),
        ("unix:/run/Etcd.sock", "unix:/run/Etcd.sock"),
        ("nobody", "nobody"),
        ("", ""),
    ],
)
def test_an_endpoint_may_be_written_as_operators_write_it(text: str, name: str) -> None:
    """However --endpoints takes it, as a maintainer copies it from the configuration."""
    assert read_query([("endpoint", text)]).endpoint == name


def test_a_limit_beyond_a_page_is_a_page() -> None:
    """Whoever wants more asks for the next page."""
    for text in ("10001", "1" * 5000):
        assert read_query([("limit", text)]).limit == MOST_LIMIT
    assert read_query([("limit", "0" * 20 + "7")]).limit == 7


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("limit", "0", "limit '0': expected a number of sessions, 1 or more"),
        ("limit", "-1", "limit '-1': expected a number"),
        ("limit", "", "limit '': expected a number"),
        ("limit", "ten", "limit 'ten': expected a number"),
        ("limit", "\u0663", "expected a number"),
        ("sort", "name", "sort 'name': expected age or bytes"),
        ("order", "age", "'order': expected endpoint, limit, sort or next"),
        ("next", "x", "next 'x': expected what the page before gave"),
        ("next", "\u00e9", "expected what the page before gave"),
        ("next", "W10=", "expected what the page before gave"),
        ("next", "bnVsbA==", "expected what the page before gave"),
        ("next", "Nw==", "expected what the page before gave"),
        ("next", write_place(Sort.BYTES, (1.0, 1.0, 0, 1, "a")), "with the same sort"),
        ("next", write_place(Sort.AGE, (1, 1.0, 0, 1, "a")), "expected what the page before gave"),
        ("next", write_place(Sort.AGE, (1.0, 1.0, 0, 1, 5)), "expected what the page before gave"),  # type: ignore[arg-type]
    ],
)
def test_a_question_that_makes_no_sense_says_what_was_expected(
    name: str, text: str, said: str
) -> None:
    """One short line that names the parameter."""
    with pytest.raises(QueryError, match="expected") as caught:
        read_query([(name, text)])
    assert said in str(caught.value)
    assert len(str(caught.value)) < 250


def test_a_parameter_may_not_be_given_twice() -> None:
    """Which of the two was meant cannot be known."""
    with pytest.raises(QueryError, match="limit was given twice"):
        read_query([("limit", "1"), ("limit", "2")])


def test_workers_are_merged_by_age() -> None:
    """The oldest session first, whoever has it."""
    fold = SessionFold(SessionQuery())
    fold.add(FIRST, rows(0, (5.0, 0, "a:1"), (7.0, 0, "a:2")))
    fold.add(SECOND, rows(0, (6.0, 0, "b:1")))
    fold.add(FIRST, rows(2, (8.0, 0, "a:3")))
    assert fold.page() == ([(FIRST, 0), (SECOND, 0), (FIRST, 1), (FIRST, 2)], None)
    assert (fold.total, fold.hosts) == (4, {"a": 3, "b": 1})


def test_workers_are_merged_by_bytes() -> None:
    """Those first that moved most."""
    fold = SessionFold(SessionQuery(sort=Sort.BYTES, limit=2))
    fold.add(FIRST, rows(0, (5.0, 10, "a:1"), (7.0, 30, "a:2")))
    fold.add(SECOND, rows(0, (6.0, 20, "b:1")))
    order, following = fold.page()
    assert order == [(FIRST, 1), (SECOND, 0)]
    assert following is not None


def test_sessions_that_ended_are_not_listed() -> None:
    """A row without a client was a session when the listing began."""
    fold = SessionFold(SessionQuery())
    fold.add(FIRST, rows(0, (5.0, 0, ""), (7.0, 0, "a:2")))
    assert fold.page() == ([(FIRST, 1)], None)
    assert fold.total == 1


@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.integers(0, 5), st.sampled_from([FIRST, SECOND])),
        max_size=60,
    ),
    st.integers(1, 7),
    st.sampled_from(Sort),
    st.booleans(),
)
def test_pages_have_every_session_once(
    sessions: list[tuple[int, int, WorkerId]], limit: int, sort: Sort, of_one_process: bool
) -> None:
    """Page after page in one order, whatever is equal, with the same total on each.

    Sessions of one process on a UNIX socket differ by nothing but their beginning.
    """
    by_worker: dict[WorkerId, list[tuple[float, int, str]]] = {FIRST: [], SECOND: []}
    for n, (started_at, moved, who) in enumerate(sessions):
        if of_one_process:
            by_worker[who].append((started_at + n / 100, moved, "unix:pid=5,uid=0"))
        else:
            by_worker[who].append((float(started_at), moved, f"10.0.0.1:{n}"))
    seen: list[tuple[WorkerId, int]] = []
    pairs = [("limit", str(limit)), ("sort", sort.value)]
    following: str | None = ""
    while following is not None:
        query = read_query([*pairs, *([("next", following)] if following else [])])
        fold = SessionFold(query)
        for who, its in by_worker.items():
            for start in range(0, len(its), 3):
                fold.add(who, rows(start, *its[start : start + 3]))
        page, following = fold.page()
        assert len(page) <= limit
        assert fold.total == len(sessions)
        seen += page
    values = [by_worker[who][row] for who, row in seen]
    assert len(set(seen)) == len(seen) == len(sessions)
    keys = [started_at if sort is Sort.AGE else -moved for started_at, moved, _ in values]
    assert keys == sorted(keys)


def test_no_more_than_two_pages_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """And of the clients no more than may be remembered, however many sessions there are."""
    monkeypatch.setattr(session_list, "MOST_CLIENTS", 50)
    fold = SessionFold(SessionQuery(limit=10))
    for start in range(0, 1000, 10):
        fold.add(FIRST, rows(start, *((float(start + n), 0, f"a:{n}") for n in range(10))))
        assert len(fold._best) <= 30
    assert len(fold.clients) == 50
    assert fold.total == 1000
    assert fold.page()[0] == [(FIRST, n) for n in range(10)]


def test_processes_hold_sessions_and_hosts_hold_the_rest() -> None:
    """A process counts once, whatever addresses it uses; who is not known counts by host."""
    backup = Process(pid=7, command="etcdctl", unit="backup.service")
    other = Process(pid=8, command="etcdctl", unit=None)
    processes = {
        "127.0.0.1:1": backup, "127.0.0.1:2": backup, "127.0.0.2:1": backup, "127.0.0.1:3": other,
        "127.0.0.9:9": other,
    }  # fmt: skip
    processes["unix:pid=9,uid=0"] = unix = Process(pid=9, command="app", unit=None)
    hosts = {"127.0.0.1": 4, "127.0.0.2": 1, "10.0.0.1": 2, "": 0, "unix:pid=9,uid=0": 5}
    holders = Holders(hosts)
    for client, process in processes.items():
        holders.add({client: process})
    held = holders.top()
    first = held.pop(0)
    assert (first["client"], first["pid"], first["sessions"]) == ("unix:pid=9,uid=0", unix.pid, 5)
    assert [(each["client"], each["pid"], each["sessions"]) for each in held] == [
        (None, 7, 3),
        ("10.0.0.1", None, 2),
        ("127.0.0.1", None, 1),
        ("127.0.0.1", 8, 1),
    ]
    assert (held[0]["command"], held[0]["unit"]) == ("etcdctl", "backup.service")
    assert len(Holders({str(n): 1 for n in range(50)}).top()) == session_holders.TOP_CLIENTS


def test_the_page_as_a_document() -> None:
    """Everything of a row, with the process if it is known."""
    process = Process(pid=7, command="etcdctl", unit="backup.service")
    page = SessionPage(
        query=SessionQuery(), now=100.0, listen=["127.0.0.1:23790"], total=1, next=None,
        rows=[(FIRST, detail())], clients=[], processes={"127.0.0.1:1": process},
        missing=["worker 2, generation 1: no answer within 3 s"],
    )  # fmt: skip
    head = page.head()
    assert (head["total"], head["limit"], head["incomplete"]) == (1, DEFAULT_LIMIT, True)
    assert (head["endpoint"], head["next"], head["clients"]) == (None, None, [])
    assert page.row(*page.rows[0]) == {
        "id": "0.1.7f", "client": "127.0.0.1:1", "via": None, "endpoint": "a.test:2379",
        "address": "10.0.0.1", "local": "10.0.0.9:5", "slot": 0, "gen": 1, "state": "open",
        "age_s": 10.0, "idle_s": 2.0, "bytes_in": 100, "bytes_out": 5000, "rate_in": 10.0,
        "rate_out": 500.0, "client_rtt_s": 0.001, "client_retransmits": 0,
        "endpoint_rtt_s": 0.002, "endpoint_retransmits": 3,
        "pid": 7, "command": "etcdctl", "unit": "backup.service",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("session", "pid"),
    [
        (detail("127.0.0.1:1"), 7),
        (detail("127.0.0.1:2"), None),
        (detail("127.0.0.1:1", via="10.0.0.1:5"), None),
        (detail("unix:pid=9,uid=0"), 9),
        (detail("unix:pid=10,uid=0"), None),
    ],
)
def test_the_process_is_that_of_the_client(session: SessionDetail, pid: int | None) -> None:
    """By its address, or as a UNIX socket says; one whose peer spoke for it is somewhere else."""
    page = SessionPage(
        query=SessionQuery(), now=100.0, listen=[], total=1, next=None,
        rows=[(FIRST, session)], clients=[],
        processes={
            "127.0.0.1:1": Process(pid=7, command="a", unit=None),
            "unix:pid=9,uid=0": Process(pid=9, command="b", unit=None),
        },
    )  # fmt: skip
    assert page.row(FIRST, session)["pid"] == pid


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        ("0::/system.slice/backup.service\n", "backup.service"),
        ("0::/user.slice/user-0.slice/user@0.service/app.slice/run-5.scope\n", "run-5.scope"),
        ("0::/system.slice/docker-0123.scope/init\n", "docker-0123.scope"),
        ("2:cpu:/x.service\n1:name=systemd:/system.slice/cron.service\n", "cron.service"),
        ("0::/\n", None),
        ("0::/user.slice\n", None),
        ("nonsense\n\n", None),
        ("", None),
    ],
)
def test_the_unit_of_a_process(cgroup: str, unit: str | None) -> None:
    """The innermost service or scope of its cgroup."""
    assert unit_of(cgroup) == unit


@pytest.mark.parametrize(
    ("client", "pid"),
    [("unix:pid=9,uid=0", 9), ("unix:pid=0,uid=0", None), ("unix:", None), ("10.0.0.1:5", None)],
)
def test_a_client_of_a_unix_socket_has_its_process_in_its_name(
    client: str, pid: int | None
) -> None:
    """But for one of another namespace, whose process has no number here."""
    assert session_holders.pid_in(client) == pid


@pytest.mark.parametrize(
    ("client", "host"),
    [("10.0.0.1:5", "10.0.0.1"), ("[2001:db8::1]:5", "2001:db8::1"), ("unix:", "unix:"),
     ("unix:pid=9,uid=0", "unix:pid=9,uid=0")],
)  # fmt: skip
def test_connections_of_a_host_count_together(client: str, host: str) -> None:
    """The port is left out; what has none stays as it is."""
    assert session_holders.host_part(client) == host


def test_who_asks_over_the_network_learns_of_no_process_on_a_unix_socket() -> None:
    """Neither from a row, nor from who holds most, nor from the place of the next page."""
    fold = SessionFold(SessionQuery(limit=1), with_processes=False)
    name = "unix:pid=9,uid=0"
    fold.add(FIRST, rows(0, (5.0, 0, name), (7.0, 0, name)))
    place = fold.page()[1]
    assert place is not None
    assert read_query([("next", place)]).after == (5.0, 5.0, 0, 1, "unix:")
    assert fold.hosts == {"unix:": 2}
    page = SessionPage(
        query=SessionQuery(), now=100.0, listen=[], total=1, next=None,
        rows=[], clients=[], with_processes=False,
    )  # fmt: skip
    for session, seen in (
        (detail(name), ("unix:", None)),
        (detail("10.0.0.1:5", via=name), ("10.0.0.1:5", "unix:")),
        (detail("10.0.0.1:5", via="10.0.0.2:6"), ("10.0.0.1:5", "10.0.0.2:6")),
    ):
        row = page.row(FIRST, session)
        assert (row["client"], row["via"]) == seen
