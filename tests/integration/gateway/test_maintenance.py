"""Endpoints that an operator takes out, and those that it prefers."""

from __future__ import annotations

import contextlib
import select
import signal
from pathlib import Path

from supervisor.cli.admin_client import fetch_status
from tests.backends import Backend, greet
from tests.clients import connect, many, read_line
from tests.gateway import Gateway, running
from tests.support import free_port, wait_until


def name_of(gateway: Gateway) -> str:
    with connect(gateway.address) as client:
        return read_line(client)


def states(admin: str) -> dict[str, str]:
    return {row["endpoint"]: row["state"] for row in fetch_status([admin])["endpoints"]}


def test_a_drained_endpoint_empties_itself(tmp_path: Path) -> None:
    """A reload takes it out: no new sessions, old ones end after the grace; and it comes back."""
    admin, file = f"127.0.0.1:{free_port()}", tmp_path / "gateway.toml"
    file.write_text("")
    with Backend(greet, name="a") as a, Backend(greet, name="b") as b:
        flags = (f"--admin-addr={admin}", f"--config-file={file}", "--access-log")
        with running(*flags, "--removal-grace=1s", endpoints=[a.address, b.address]) as gateway:
            gateway.wait_line("admin address is open")
            while True:  # until one is on the endpoint that will be taken out
                client = connect(gateway.address)
                if read_line(client) == "a":
                    break
                client.close()
            with client:
                file.write_text(f'drain-endpoints = ["{a.address}", "nobody:1"]')
                gateway.signal(signal.SIGHUP)
                assert gateway.wait_line("no such endpoint in --drain-endpoints")["names"] == [
                    "nobody:1"
                ]
                wait_until(lambda: states(admin)[a.address] == "draining")
                wait_until(lambda: name_of(gateway) == "b" == name_of(gateway), what="all know")
                assert {name_of(gateway) for _ in range(10)} == {"b"}
                client.settimeout(60)
                with contextlib.suppress(ConnectionResetError):
                    assert client.recv(1) == b""
            wait_until(
                lambda: any(line["end"] == "drained" for line in gateway.lines("session")),
                what="the session is logged",
            )
            file.write_text("")
            gateway.signal(signal.SIGHUP)
            wait_until(lambda: states(admin)[a.address] == "active")
            wait_until(lambda: name_of(gateway) == "a", what="it is used again")


def test_preferred_endpoints_come_first() -> None:
    """Endpoints in the networks of --prefer take every session until none of them is active."""
    with Backend(greet, name="near", host="127.0.5.1") as near, Backend(greet, name="far") as far:
        with running("--prefer=127.0.5.0/24", endpoints=[far.address, near.address]) as gateway:
            assert {name_of(gateway) for _ in range(10)} == {"near"}
            near.stop()
            assert {name_of(gateway) for _ in range(10)} == {"far"}


def test_the_end_of_a_drain_is_spread() -> None:
    """Near the deadline sessions are cut one by one, and all of them are counted."""
    with Backend(greet, name="b") as backend:
        flags = ("--drain-timeout=4s", "--close-spread=1s")
        with (
            running(*flags, endpoints=[backend.address], workers=1) as gateway,
            many(gateway.address, 40) as clients,
        ):
            assert {read_line(client) for client in clients} == {"b"}
            gateway.signal(signal.SIGTERM)
            cut, _, _ = select.select(clients, [], [], 20)
            assert 0 < len(cut) < 40
            assert gateway.wait_line("drained")["sessions_cut"] == 40
