"""The list of sessions of a real gateway: over HTTP and by the command."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from supervisor.cli.admin_client import fetch_sessions, fetch_status
from supervisor.cli.tables import Output
from tests import clients
from tests.backends import Backend, echo, swallow
from tests.gateway import COMMAND, Gateway, environment, run_command, running
from tests.integration.admin.test_server import exchange
from tests.support import free_port, wait_until

Row = dict[str, Any]


@pytest.fixture
def admin(tmp_path: Path) -> str:
    return f"unix:{tmp_path}/admin.sock"


def ask(admin: str, **query: object) -> dict[str, Any]:
    return fetch_sessions([admin], {name: str(each) for name, each in query.items()})


def ask_raw(admin: str, query: str) -> tuple[int, str]:
    answer = exchange(admin, f"GET /sessions{query} HTTP/1.0\r\n\r\n".encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode()


def name_of(sock: socket.socket) -> str:
    return "{}:{}".format(*sock.getsockname())


def connect(gateway: Gateway, count: int = 1) -> list[socket.socket]:
    return [clients.connect(gateway.address) for _ in range(count)]


def talk(sock: socket.socket, size: int = 5) -> None:
    """Have the echo server send back ``size`` bytes."""
    sock.sendall(bytes(size))
    left = size
    while left:
        left -= len(sock.recv(left))


@contextlib.contextmanager
def closing(socks: list[socket.socket]) -> Iterator[list[socket.socket]]:
    try:
        yield socks
    finally:
        for sock in socks:
            sock.close()


@contextlib.contextmanager
def talking(gateway: Gateway, count: int = 1) -> Iterator[list[socket.socket]]:
    """Sessions that have moved five bytes each way."""
    with closing(connect(gateway, count)) as socks:
        for sock in socks:
            talk(sock)
        yield socks


def row_of(admin: str, sock: socket.socket) -> Row | None:
    client = name_of(sock)
    return next((each for each in ask(admin)["sessions"] if each["client"] == client), None)


def wait_total(admin: str, total: int) -> None:
    wait_until(lambda: ask(admin)["total"] == total, 15, f"{total} sessions")


def test_a_session_says_everything_of_itself(admin: str) -> None:
    """Both addresses, both paths, bytes each way, and the process that holds it."""
    with (
        Backend(echo) as backend,
        running(f"--admin-addr={admin}", endpoints=[backend.address]) as gateway,
    ):
        with closing(connect(gateway)) as (sock,):
            talk(sock, 1000)
            row = row_of(admin, sock)
            assert row is not None
            assert row["endpoint"] == backend.address
            assert (row["address"], row["via"], row["state"]) == ("127.0.0.1", None, "open")
            assert (row["bytes_in"], row["bytes_out"]) == (1000, 1000)
            assert row["rate_in"] == row["rate_out"] > 0
            assert 0 <= row["idle_s"] <= row["age_s"]
            assert 0 < row["client_rtt_s"] < 1
            assert 0 < row["endpoint_rtt_s"] < 1
            assert (row["client_retransmits"], row["endpoint_retransmits"]) == (0, 0)
            assert (row["pid"], row["command"]) == (os.getpid(), comm(os.getpid()))
            (worker,) = [
                each for each in fetch_status([admin])["workers"] if each["slot"] == row["slot"]
            ]
            assert worker["gen"] == row["gen"]
            local = row["local"].rpartition(":")
            assert local[0] == "127.0.0.1"
            assert int(local[2]) in peer_ports(backend.port)
        wait_total(admin, 0)


def comm(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def peer_ports(port: int) -> set[int]:
    """Local ports of the connections to ``port``, from /proc/net/tcp."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    fields = [line.split() for line in lines]
    return {
        int(each[1].partition(":")[2], 16)
        for each in fields
        if int(each[2].partition(":")[2], 16) == port
    }


def test_idle_is_known_at_the_first_question(admin: str) -> None:
    """Also without --idle-timeout, when nobody has looked at the session before."""
    with (
        Backend(echo) as backend,
        running(f"--admin-addr={admin}", endpoints=[backend.address]) as gateway,
    ):
        with talking(gateway) as (sock,):
            wait_until(lambda: fetch_status([admin])["uptime_s"] > 2.5)
            first = row_of(admin, sock)
            assert first is not None
            assert first["idle_s"] > first["age_s"] / 2
            talk(sock)
            second = row_of(admin, sock)
            assert second is not None
            assert second["idle_s"] < first["idle_s"]


def test_the_states_of_a_session(admin: str) -> None:
    """Half-closed, stalled and open next to each other, then dialing where nobody answers."""
    with (
        Backend(swallow) as slow,
        running(f"--admin-addr={admin}", endpoints=[slow.address]) as gateway,
    ):
        with closing(connect(gateway, 2)) as (half, still):
            half.shutdown(socket.SHUT_WR)
            still.sendall(b"x")

            def states() -> list[str]:
                rows = [row_of(admin, each) for each in (half, still)]
                return [each["state"] if each else "gone" for each in rows]

            wait_until(lambda: states()[1] == "open")


def test_a_peer_that_takes_nothing_is_stalled(admin: str) -> None:
    """The client does not read what the endpoint sends without end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = name_of(listener)
        with running(
            f"--admin-addr={admin}",
            "--drain-timeout=0s",
            "--health-check=off",
            endpoints=[endpoint],
        ) as gateway:
            with closing(connect(gateway)) as (sock,):
                server, _ = listener.accept()
                with server:
                    server.setblocking(False)
                    with contextlib.suppress(BlockingIOError):
                        while True:
                            server.send(bytes(1 << 20))
                    wait_until(lambda: (row_of(admin, sock) or {}).get("state") == "stalled", 20)
                    taken = bytearray()
                    sock.settimeout(60)
                    server.shutdown(socket.SHUT_WR)
                    while data := sock.recv(1 << 20):
                        taken += data
                    wait_until(lambda: (row_of(admin, sock) or {}).get("state") == "half-closed")


def test_a_session_that_has_no_endpoint_yet_is_dialing(admin: str) -> None:
    """A listener with a full queue answers nobody."""
    with socket.socket() as hole:
        hole.bind(("127.0.0.1", 0))
        hole.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        with closing(fillers):
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(hole.getsockname())
            flags = [f"--admin-addr={admin}", "--dial-timeout=30s", "--health-check=off"]
            with running(*flags, "--drain-timeout=0s", endpoints=[name_of(hole)]) as gateway:
                with closing(connect(gateway)) as (sock,):
                    wait_until(lambda: row_of(admin, sock) is not None)
                    row = row_of(admin, sock)
                    assert row is not None
                    assert (row["state"], row["endpoint"], row["address"]) == (
                        "dialing",
                        None,
                        None,
                    )
                    assert (row["local"], row["endpoint_rtt_s"]) == (None, None)


def test_pages_sorts_and_endpoints(admin: str) -> None:
    """Over several workers: the oldest first, those that moved most first, one endpoint only."""
    with (
        Backend(echo) as a,
        Backend(echo) as b,
        running(f"--admin-addr={admin}", endpoints=[a.address, b.address], workers=3) as gateway,
        closing([]) as socks,
    ):
        for n in range(25):
            socks.extend(connect(gateway))
            talk(socks[-1], 1 + n)
        wait_total(admin, 25)
        pages, query = [], {"limit": "7"}
        while True:
            page = fetch_sessions([admin], query)
            pages.append([each["client"] for each in page["sessions"]])
            assert (page["total"], page["incomplete"]) == (25, False)
            if page["next"] is None:
                break
            query["next"] = page["next"]
        assert [len(page) for page in pages] == [7, 7, 7, 4]
        assert sorted(each for page in pages for each in page) == sorted(map(name_of, socks))
        ages = [each["age_s"] for each in ask(admin)["sessions"]]
        assert ages == sorted(ages, reverse=True)
        by_bytes = ask(admin, sort="bytes", limit=3)["sessions"]
        assert [each["bytes_in"] for each in by_bytes] == [25, 24, 23]
        of_a = ask(admin, endpoint=a.address)
        assert 8 <= of_a["total"] <= 17
        assert {each["endpoint"] for each in of_a["sessions"]} == {a.address}
        nobody = ask(admin, endpoint="nobody:1")
        assert (nobody["total"], nobody["sessions"], nobody["incomplete"]) == (0, [], False)
        (holder,) = ask(admin, limit=1)["clients"]
        assert (holder["pid"], holder["sessions"]) == (os.getpid(), 25)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("?limit=0", "limit '0': expected a number of sessions, 1 or more"),
        ("?limit=", "limit '': expected a number of sessions, 1 or more"),
        ("?sort=name", "sort 'name': expected age or bytes"),
        ("?order=age", "'order': expected endpoint, limit, sort or next"),
        ("?next=%00", "expected what the page before gave"),
        ("?limit=1&limit=2", "limit was given twice"),
        ("?" + urlencode({"endpoint\r\nX": "1"}), "expected endpoint, limit, sort or next"),
    ],
)
def test_a_bad_question_is_answered_with_what_was_expected(
    admin: str, query: str, said: str
) -> None:
    """400 and one line; the next question is answered as before."""
    with running(f"--admin-addr={admin}", endpoints=["127.0.0.1:1"], workers=1):
        code, text = ask_raw(admin, query)
        assert code == 400
        assert said in text
        assert text.count("\n") == 1
        assert ask(admin)["total"] == 0


def test_who_asks_over_the_network_learns_of_no_processes(admin: str) -> None:
    """Over loopback the processes of the clients are told, from another address they are not."""
    own = next((a for a in addresses_of_this_host() if not a.startswith("127.")), None)
    if own is None:
        pytest.skip("needs an address beside loopback")
    port = free_port()
    with (
        Backend(echo) as backend,
        running(f"--admin-addr={admin},:{port}", endpoints=[backend.address]) as gateway,
    ):
        with talking(gateway) as (sock,):
            near, far = ask(f"127.0.0.1:{port}"), ask(f"{own}:{port}")
            assert near["sessions"][0]["pid"] == os.getpid()
            assert near["clients"][0]["pid"] == os.getpid()
            assert far["sessions"][0]["client"] == name_of(sock)
            for key in ("pid", "command", "unit"):
                assert far["sessions"][0][key] is None
                assert far["clients"][0][key] is None


def addresses_of_this_host() -> list[str]:
    done = subprocess.run(["hostname", "-I"], capture_output=True, text=True)
    return [each for each in done.stdout.split() if ":" not in each]


def test_draining_workers_and_those_of_an_earlier_image_answer_too(admin: str) -> None:
    """After an upgrade the sessions of the old workers are in the list, and no session is lost."""
    with (
        Backend(echo) as backend,
        running(
            f"--admin-addr={admin}", "--drain-timeout=60s", endpoints=[backend.address]
        ) as gateway,
    ):
        with talking(gateway, 4) as socks:
            gateway.signal(signal.SIGUSR2)
            gateway.wait_line("ready to proxy client requests", 30, count=2)
            with talking(gateway, 2) as more:
                wait_until(lambda: ask_raw(admin, "")[0] == 200, 20, "the new image answers")
                wait_total(admin, 6)
                document = ask(admin)
                clients = {each["client"] for each in document["sessions"]}
                assert clients == set(map(name_of, [*socks, *more]))
                assert len({each["gen"] for each in document["sessions"]}) == 2
                assert not document["incomplete"]
            for sock in socks:
                sock.close()
            gateway.stop()


def test_a_worker_that_does_not_answer_makes_the_list_incomplete(admin: str) -> None:
    """The others' sessions are there, and the list says whose are missing."""
    with (
        Backend(echo) as backend,
        running(
            f"--admin-addr={admin}", "--worker-timeout=60s", endpoints=[backend.address], workers=2
        ) as gateway,
    ):
        with talking(gateway, 16):
            wait_total(admin, 16)
            workers = fetch_status([admin])["workers"]
            stopped = next(each for each in workers if each["slot"] == 1)
            os.kill(stopped["pid"], signal.SIGSTOP)
            try:
                document = ask(admin)
                assert document["incomplete"] is True
                assert document["missing"] == ["worker 1, generation 1: no answer within 3 s"]
                assert {each["slot"] for each in document["sessions"]} <= {0}
                done = run_command("sessions", f"--admin-addr={admin}")
                assert (done.returncode, done.stderr) == (3, "")
                assert "incomplete: worker 1, generation 1: no answer" in done.stdout
            finally:
                os.kill(stopped["pid"], signal.SIGCONT)
            wait_until(lambda: not ask(admin)["incomplete"])
            assert ask(admin)["total"] == 16


def test_a_worker_that_dies_meanwhile_is_not_waited_for(admin: str) -> None:
    """It is missing, and the answer comes as soon as that is known."""
    with (
        Backend(echo) as backend,
        running(
            f"--admin-addr={admin}", "--worker-timeout=60s", endpoints=[backend.address], workers=2
        ) as gateway,
    ):
        with talking(gateway, 8):
            wait_total(admin, 8)
            pid = next(w["pid"] for w in fetch_status([admin])["workers"] if w["slot"] == 1)
            os.kill(pid, signal.SIGSTOP)
            answers: list[dict[str, Any]] = []
            asking = threading.Thread(target=lambda: answers.append(ask(admin)), daemon=True)
            asking.start()
            wait_until(lambda: fetch_status([admin])["workers"][1]["heartbeat_age_s"] > 0.3)
            os.kill(pid, signal.SIGKILL)
            asking.join(60)
            (document,) = answers
            assert document["incomplete"] is True
            assert document["missing"] == ["worker 1, generation 1: it ended meanwhile"]


ASKING = 4
"""One is answered after the other; a busy machine needs a second for each, and a connection has
ten."""


def test_many_ask_and_some_leave_before_the_answer(admin: str) -> None:
    """Each gets the whole list; one that leaves costs the others nothing."""
    with (
        Backend(echo) as backend,
        running(f"--admin-addr={admin}", endpoints=[backend.address]) as gateway,
    ):
        with closing(connect(gateway, 300)) as socks:
            talk(socks[-1])
            wait_total(admin, 300)
            for _ in range(4):
                with socket.socket(socket.AF_UNIX) as leaves:
                    leaves.connect(admin.removeprefix("unix:"))
                    leaves.sendall(b"GET /sessions HTTP/1.0\r\n\r\n")
            totals: list[int] = []
            threads = [
                threading.Thread(target=lambda: totals.append(len(ask(admin)["sessions"])))
                for _ in range(ASKING)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
            assert totals == [300] * ASKING
        wait_total(admin, 0)
        assert not [each for each in gateway.lines() if each["level"] == "error"]


def test_sessions_come_and_go_while_they_are_listed(admin: str) -> None:
    """Nothing breaks, and no session that stays is ever missing."""
    with (
        Backend(echo) as backend,
        running(f"--admin-addr={admin}", endpoints=[backend.address]) as gateway,
    ):
        over = threading.Event()

        def churn() -> None:
            while not over.is_set():
                with contextlib.suppress(OSError), closing(connect(gateway, 20)) as socks:
                    for sock in socks:
                        talk(sock)

        with talking(gateway, 50) as stay:
            wait_total(admin, 50)
            names = set(map(name_of, stay))
            thread = threading.Thread(target=churn, daemon=True)
            thread.start()
            try:
                for n in range(30):
                    document = ask(admin, sort=("age", "bytes")[n % 2])
                    assert names <= {each["client"] for each in document["sessions"]}
                    assert not document["incomplete"]
            finally:
                over.set()
                thread.join(60)
        assert not [each for each in gateway.lines() if each["level"] == "error"]


def test_the_command_prints_a_table(admin: str) -> None:
    """Who holds most, then the sessions; limits, sorts and endpoints as asked; exit 0."""
    with (
        Backend(echo) as a,
        Backend(echo) as b,
        running(f"--admin-addr={admin}", endpoints=[a.address, b.address]) as gateway,
    ):
        nothing = run_command("sessions", f"--admin-addr={admin}")
        assert (nothing.returncode, nothing.stdout) == (0, "0 sessions\n")
        for name, count in ((f"http://{a.address}", 1), ("nobody:1", 2)):
            nothing = run_command("sessions", f"--admin-addr={admin}", f"--endpoint={name}")
            assert (nothing.returncode, len(nothing.stdout.splitlines())) == (0, count)
        with closing(connect(gateway, 10)) as socks:
            for n, sock in enumerate(socks):
                talk(sock, 1 + n)
            wait_total(admin, 10)
            done = run_command("sessions", f"--admin-addr={admin}")
            assert (done.returncode, done.stderr) == (0, "")
            lines = done.stdout.splitlines()
            assert lines[0] == "10 sessions, the oldest first"
            assert lines[1] == f"most sessions: {comm(os.getpid())}[{os.getpid()}] 10"
            assert [line.split()[0] for line in lines[4:]] != []
            assert {line.split()[0] for line in lines[4:]} == set(map(name_of, socks))
            some = run_command("sessions", f"--admin-addr={admin}", "--limit=2", "--sort=bytes")
            lines = some.stdout.splitlines()
            assert lines[0] == "10 sessions, those that moved most first"
            assert [line.split()[0] for line in lines[4:6]] == [
                name_of(socks[9]),
                name_of(socks[8]),
            ]
            assert lines[6] == "... 8 more; --limit shows more of them"
            of_a = run_command("sessions", f"--admin-addr={admin}", f"--endpoint={a.address}")
            assert b.address not in of_a.stdout
            document = json.loads(
                run_command("sessions", f"--admin-addr={admin}", "--json", "--limit=3").stdout
            )
            assert (len(document["sessions"]), document["total"]) == (3, 10)


def test_the_command_reads_page_after_page(admin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than a page is asked for in several questions."""
    from supervisor.cli import sessions as sessions_command

    monkeypatch.setattr(sessions_command, "MOST_LIMIT", 4)
    with (
        Backend(echo) as backend,
        running(f"--admin-addr={admin}", endpoints=[backend.address]) as gateway,
    ):
        with talking(gateway, 11):
            wait_total(admin, 11)
            wish = sessions_command.read_wish(endpoint=None, limit="10", sort=None)
            output = Output()
            document = sessions_command._fetch([admin], wish, output, as_json=True)
            assert len({each["client"] for each in document["sessions"]}) == 10
            assert document["limit"] == 10


def test_the_command_without_a_gateway(admin: str) -> None:
    """One line on standard error, exit 4, no traceback."""
    done = run_command("sessions", f"--admin-addr={admin}")
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith("etcd-gateway: no gateway answers at ")
    assert done.stderr.count("\n") == 1


def test_watch_shows_the_rates_between_two_answers(admin: str) -> None:
    """A session that was quiet for long and moves bytes now has the rate of now."""
    with (
        Backend(echo) as backend,
        running(f"--admin-addr={admin}", endpoints=[backend.address]) as gateway,
    ):
        with talking(gateway) as (sock,):
            wait_total(admin, 1)
            argv = [*COMMAND, "sessions", f"--admin-addr={admin}", "--json", "--watch"]
            with subprocess.Popen(
                argv, stdout=subprocess.PIPE, env=environment(), text=True
            ) as watching:
                assert watching.stdout is not None
                first = json.loads(watching.stdout.readline())["sessions"][0]
                talk(sock, 1_000_000)
                second = json.loads(watching.stdout.readline())["sessions"][0]
                watching.send_signal(signal.SIGINT)
                assert watching.wait(60) == 0
            passed_s = second["age_s"] - first["age_s"]
            assert second["id"] == first["id"]
            assert second["rate_in"] == pytest.approx(1_000_000 / passed_s, rel=0.5)


def test_an_endpoint_with_a_strange_name_can_be_asked_for(admin: str) -> None:
    """IPv6 endpoints have brackets and colons in their names."""
    with (
        Backend(echo, host="::1") as backend,
        running(f"--admin-addr={admin}", endpoints=[backend.address]) as gateway,
    ):
        with talking(gateway):
            code, text = ask_raw(admin, f"?endpoint={quote(backend.address)}")
            assert code == 200
            (row,) = json.loads(text)["sessions"]
            assert (row["endpoint"], row["address"]) == (backend.address, "::1")


def test_a_client_of_a_unix_socket_is_listed_with_its_process(admin: str, tmp_path: Path) -> None:
    """The kernel says who connected; there is no round trip on its side."""
    path = tmp_path / "client.sock"
    with (
        Backend(echo) as backend,
        Gateway(
            f"--admin-addr={admin}", listen=f"unix:{path}", endpoints=[backend.address]
        ) as gateway,
    ):
        gateway.wait_ready()
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))
            talk(sock)
            wait_total(admin, 1)
            document = ask(admin)
            (row,) = document["sessions"]
            assert row["client"].startswith(f"unix:pid={os.getpid()},")
            assert (row["pid"], row["command"]) == (os.getpid(), comm(os.getpid()))
            assert (row["state"], row["client_rtt_s"], row["client_retransmits"]) == (
                "open", None, None,
            )  # fmt: skip
            assert row["endpoint_rtt_s"] > 0
            (holder,) = document["clients"]
            assert (holder["pid"], holder["sessions"]) == (os.getpid(), 1)


@pytest.mark.parametrize("abstract", [False, True])
def test_an_endpoint_on_a_unix_socket_is_listed_as_the_access_log_has_it(
    admin: str, tmp_path: Path, abstract: bool
) -> None:
    """Its address is its name; that of the process behind it is nobody's."""
    path = f"@{tmp_path}" if abstract else str(tmp_path / "endpoint.sock")
    with (
        Backend(echo, path=path) as backend,
        running(f"--admin-addr={admin}", "--access-log", endpoints=[backend.address]) as gateway,
    ):
        with talking(gateway):
            wait_total(admin, 1)
            (row,) = ask(admin)["sessions"]
        line = gateway.wait_line("session")
        same = ("client", "endpoint", "address", "local")
        assert [row[key] for key in same] == [line[key] for key in same]
        assert row["address"] == f"unix:{path}"


def test_a_client_that_a_proxy_speaks_for_is_listed_as_itself(admin: str) -> None:
    """``via`` is the proxy; the process at its end is not the client's."""
    with (
        Backend(echo) as backend,
        running(
            f"--admin-addr={admin}", "--proxy-in=127.0.0.0/8", endpoints=[backend.address]
        ) as gateway,
        closing(connect(gateway)) as (sock,),
    ):
        sock.sendall(b"PROXY TCP4 192.0.2.7 10.0.0.1 5555 80\r\n")
        talk(sock)
        wait_total(admin, 1)
        document = ask(admin)
        (row,) = document["sessions"]
        assert (row["client"], row["via"]) == ("192.0.2.7:5555", name_of(sock))
        assert (row["pid"], row["bytes_in"]) == (None, 5)
        (holder,) = document["clients"]
        assert (holder["client"], holder["sessions"]) == ("192.0.2.7", 1)
        done = run_command("sessions", f"--admin-addr={admin}")
        assert done.stdout.splitlines()[2].split()[:2] == ["CLIENT", "VIA"]
