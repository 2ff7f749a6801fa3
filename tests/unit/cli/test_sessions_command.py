"""The table of the command ``sessions``, and what it adds to the gateway's answer."""

from __future__ import annotations

import io
import os
import socket
from typing import Any

import pytest
from rich.console import Console

from gateway.core.socket_address import address_text
from supervisor.cli import sessions
from supervisor.cli.admin_client import is_of_this_host
from supervisor.cli.main import main
from supervisor.cli.sessions import add_processes, read_wish, render, set_rates
from supervisor.core.admin.session_list import Sort
from tests.generate import DOCS

Row = dict[str, Any]


def row(**changed: object) -> Row:
    return {
        "id": "0.1.7f", "client": "10.0.0.7:51234", "via": None,
        "endpoint": "infra0.example.com:2379", "address": "10.0.1.10", "local": "10.0.0.1:40312",
        "slot": 0, "gen": 1, "state": "open", "age_s": 100.0, "idle_s": 3.0, "bytes_in": 2048,
        "bytes_out": 0, "rate_in": 20.5, "rate_out": 0.0, "client_rtt_s": 0.0001,
        "client_retransmits": 1, "endpoint_rtt_s": 0.0004, "endpoint_retransmits": 2,
        "pid": None, "command": None, "unit": None,
    } | changed  # fmt: skip


def document(*rows: Row, **changed: object) -> dict[str, Any]:
    return {
        "listen": ["127.0.0.1:23790"], "total": len(rows), "sort": "age", "limit": 1000,
        "endpoint": None, "next": None, "incomplete": False, "missing": [],
        "clients": [
            {"client": "10.0.0.7", "pid": None, "command": None, "unit": None, "sessions": 2}
        ],
        "sessions": list(rows),
    } | changed  # fmt: skip


def shown(document: dict[str, Any], width: int = 200) -> list[str]:
    file = io.StringIO()
    Console(file=file, width=width, highlight=False, markup=False).print(render(document, width))
    return [line.rstrip() for line in file.getvalue().splitlines()]


def test_a_wide_terminal_shows_everything() -> None:
    """With the process and the peer where somebody has one; the address where it says more."""
    lines = shown(
        document(
            row(),
            row(client="127.0.0.1:5", pid=7, command="etcdctl", unit="backup.service"),
            row(client="192.0.2.1:9", via="10.0.0.2:80", endpoint=None, address=None,
                endpoint_rtt_s=None, endpoint_retransmits=None, state="dialing"),
        )
    )  # fmt: skip
    assert lines[:3] == ["3 sessions, the oldest first", "most sessions: 10.0.0.7 2", ""]
    assert lines[3].split() == [
        "CLIENT", "VIA", "ENDPOINT", "STATE", "AGE", "IDLE", "IN", "OUT", "IN/S", "OUT/S", "RTT",
        "RESENT", "SLOT", "PROCESS",
    ]  # fmt: skip
    assert "infra0.example.com:2379 (10.0.1.10)" in lines[4]
    assert lines[4].split()[5:] == [
        "1m40s", "3s", "2.0", "KiB", "0", "B", "20", "B", "0", "B", "0.4", "ms", "3", "0",
    ]  # fmt: skip
    assert lines[5].endswith("etcdctl[7] backup.service")
    assert lines[6].split()[:4] == ["192.0.2.1:9", "10.0.0.2:80", "-", "dialing"]


@pytest.mark.parametrize("width", [20, 60, 80, 100, 109])
def test_a_narrow_terminal_shows_what_matters_most(width: int) -> None:
    """No line is broken, however narrow it is."""
    lines = shown(document(row(), row(client="[2001:db8:1:2:3:4:5:6]:51234")), width)
    assert max(map(len, lines)) <= width
    assert "RTT" not in " ".join(lines)


def test_what_is_missing_is_said_first() -> None:
    """A list without the sessions of a worker looks complete otherwise."""
    lines = shown(document(row(), incomplete=True, missing=["worker 1, generation 2: no answer"]))
    assert lines[:2] == ["1 session", "incomplete: worker 1, generation 2: no answer"]


def test_more_than_the_page_is_said_last() -> None:
    """With the flag that shows them."""
    assert shown(document(row(), total=12))[-1] == "... 11 more; --limit shows more of them"


def test_a_name_that_no_endpoint_has_is_told() -> None:
    """No sessions of a misspelled name would be taken for an endpoint that is free."""
    lines = shown(document(endpoint="nobody:1", unknown=True))
    assert lines == [
        "0 sessions of nobody:1",
        "the gateway has no endpoint of this name; etcd-gateway status has their names",
    ]


def test_a_process_may_call_itself_anything() -> None:
    """Control characters are escapes as in every table, and wide characters are no problem."""
    name = "\x1b[2J\x07日本"
    lines = shown(document(row(pid=7, command=name, client="a\x1b:5")))
    assert "\x1b" not in "".join(lines)
    assert lines[-1].startswith(r"a\x1b:5")
    assert lines[-1].endswith(r"\x1b[2J\x07日本[7]")


def test_the_example_of_the_page_is_what_the_command_prints() -> None:
    """The page of operations shows a table that its readers will see."""
    etcdctl = {"pid": 4711, "command": "etcdctl", "unit": "backup.service"}
    nobody = {"pid": None, "command": None, "unit": None}
    lines = shown(
        document(
            row(address=None, age_s=183_600.0, idle_s=1.0, bytes_in=4_300_000, rate_in=23.4,
                bytes_out=958_900_000, rate_out=5222.0, client_retransmits=5,
                endpoint_retransmits=7, slot=3),
            row(client="127.0.0.1:40312", endpoint="infra1.example.com:2379", address=None,
                age_s=4320.0, idle_s=9.0, bytes_in=1229, rate_in=0.3, bytes_out=5734, rate_out=1.3,
                endpoint_rtt_s=0.0003, client_retransmits=0, endpoint_retransmits=0, **etcdctl),
            total=900,
            clients=[
                {"client": "127.0.0.1:40312", "sessions": 850, **etcdctl},
                {"client": "10.0.0.7", "sessions": 40, **nobody},
                {"client": "10.0.0.9", "sessions": 10, **nobody},
            ],
        )
    )  # fmt: skip
    page = (DOCS / "operations.md").read_text()
    assert "$ etcd-gateway sessions\n" + "\n".join(lines) + "\n```" in page


def test_rates_are_those_between_two_answers() -> None:
    """But for a session that was not there before, or is another one under the same name."""
    before = document(row(), row(id="b", bytes_in=9000), row(id="c", age_s=500.0))
    after = document(
        row(age_s=102.0, bytes_in=4048, bytes_out=10),
        row(id="b", age_s=102.0),
        row(id="c", age_s=1.0),
        row(id="new"),
    )
    set_rates(before, after)
    rates = [(each["rate_in"], each["rate_out"]) for each in after["sessions"]]
    assert rates == [(1000.0, 5.0), (20.5, 0.0), (20.5, 0.0), (20.5, 0.0)]


def test_who_asks_may_see_processes_that_the_gateway_may_not() -> None:
    """Those of this host are added, to the sessions and to who holds most."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as sock:
            answer = document(
                row(client=address_text(sock.getsockname())),
                row(client="192.0.2.1:5"),
                row(client=f"unix:pid={os.getpid()},uid=0"),
                listen=[f"127.0.0.1:{port}", "unix:/run/client.sock"],
                clients=[
                    {"client": host, "pid": None, "command": None, "unit": None, "sessions": 1}
                    for host in ("127.0.0.1", "192.0.2.1", f"unix:pid={os.getpid()},uid=0")
                ],
            )
            add_processes(answer)
    assert [each["pid"] for each in answer["sessions"]] == [os.getpid(), None, os.getpid()]
    assert answer["sessions"][0]["command"]
    assert sorted((each["pid"] or 0, each["sessions"]) for each in answer["clients"]) == [
        (0, 1),
        (os.getpid(), 2),
    ]


@pytest.mark.parametrize(
    ("address", "here"),
    [("unix:/a", True), ("127.0.0.1:1", True), ("[::1]:1", True), ("localhost:1", True),
     (":1", True), ("0.0.0.0:1", True), ("[::]:1", True),
     ("10.0.0.1:1", False), ("[2001:db8::1]:1", False)],
)  # fmt: skip
def test_processes_are_looked_for_on_the_gateways_host(address: str, here: bool) -> None:
    """An answer from another host is about the processes there."""
    assert is_of_this_host(address) == here


def test_a_wish() -> None:
    """Nothing asked for is the oldest sessions, as many as there is room for."""
    assert read_wish(endpoint=None, limit=None, sort=None) == sessions.Wish()
    assert read_wish(endpoint="http://A.:1", limit="0012", sort="bytes") == sessions.Wish(
        endpoint="a:1", limit=12, sort=Sort.BYTES
    )


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("--limit=0", '--limit "0": expected a number of sessions, 1 or more'),
        ("--limit=-3", '--limit "-3": expected a number of sessions, 1 or more'),
        ("--limit=all", '--limit "all": expected a number of sessions, 1 or more'),
        ("--sort=client", '--sort "client": expected age or bytes'),
        ("--endpoint=", '--endpoint "": expected an endpoint, as status shows it'),
        ("--endpoint=a\x1b[2J", r'--endpoint "a\x1b[2J": expected an endpoint, as status shows it'),
        ("--endpoint=--json", '--endpoint "--json": expected an endpoint, as status shows it'),
        ("--endpoint=a\udcff", r'--endpoint "a\udcff": expected an endpoint, as status shows it'),
    ],
)
def test_a_wish_that_makes_no_sense(
    argument: str, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """One line and exit code 2, before anybody is asked."""
    assert main(["sessions", argument, "--admin-addr=127.0.0.1:1"]) == 2
    assert capfd.readouterr().err == f"etcd-gateway: {said}\n"
