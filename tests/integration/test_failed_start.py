"""A start that fails says why in the last line on standard error, whatever came before."""

from __future__ import annotations

import errno
import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.backends import Backend, greet
from tests.clients import asked
from tests.dns import NameServer
from tests.gateway import COMMAND, Gateway
from tests.support import free_port

REFUSED = [sys.executable, "-m", "tests.refused_calls", str(errno.EAFNOSUPPORT), "socketpair"]
"""As under a unit whose RestrictAddressFamilies= leaves AF_UNIX out."""

BROKEN_LIBRARY = """
class Loop: ...
def new_event_loop():
    raise RuntimeError("no event loop for you")
"""


def last_line(gateway: Gateway, code: int) -> str:
    """What the last line says, of a gateway that ends with this exit code."""
    assert gateway.process.wait(60) == code, gateway.text()
    last = json.loads(gateway.text().splitlines()[-1])
    assert last["level"] == "error"
    return f"{last['msg']} {last.get('error', '')}"


@pytest.mark.parametrize("workers", [1, 4])
def test_a_listen_address_that_another_program_has(workers: int) -> None:
    """One clear line, also while several workers start, and the other program keeps the address."""
    with Backend(greet, name="other") as other:
        with Gateway(endpoints=["127.0.0.1:1"], listen=other.address, workers=workers) as it:
            assert last_line(it, 1).rstrip() == (
                f"cannot listen on {other.address}: Address already in use; expected in"
                " --listen-addr an address of this host on which no other program listens"
            )
            assert "expected" in it.lines("worker cannot start")[0]
            assert "Traceback" not in it.text()
        assert asked((other.host, other.port)) == "other"


def test_a_listen_address_of_another_host() -> None:
    """192.0.2.0/24 is nobody's (RFC 5737)."""
    with Gateway(endpoints=["127.0.0.1:1"], listen="192.0.2.1:4000") as it:
        why = last_line(it, 1)
    assert "cannot listen on 192.0.2.1:4000: Cannot assign requested address" in why


def test_an_admin_address_that_another_program_has() -> None:
    """It is taken first."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with Gateway(f"--admin-addr={address}", endpoints=["127.0.0.1:1"]) as it:
            why = last_line(it, 1)
    assert f"cannot serve the admin address {address}: Address already in use" in why
    assert "; expected in --admin-addr an address at which the gateway can listen" in why


def test_no_endpoint() -> None:
    """DNS says that there is none."""
    with (
        NameServer() as ns,
        Gateway("--discovery-srv=nothing.test", f"--nameserver={ns.address}") as it,
    ):
        assert "no endpoint found: " in last_line(it, 69)


def test_too_few_descriptors() -> None:
    """What could not work is said at once, with what would be enough, and in one line."""
    with Gateway(endpoints=["127.0.0.1:1"], workers=4, prefix=["prlimit", "--nofile=40:40"]) as it:
        why = last_line(it, 1)
        assert "the limit of open files is 40, expected at least 60 for 4 workers" in why
        assert len([line for line in it.lines() if line["level"] == "error"]) == 1


def test_an_endpoint_that_is_the_gateway_itself() -> None:
    """A loop is wrong usage."""
    port = free_port()
    with Gateway(endpoints=[f"127.0.0.1:{port}"], listen=f"127.0.0.1:{port}") as it:
        assert "is the gateway's own listen address" in last_line(it, 2)


def test_workers_that_die_before_they_are_ready(tmp_path: Path) -> None:
    """The reason of the last one is in the line that gives up."""
    (tmp_path / "uvloop.py").write_text(BROKEN_LIBRARY)
    broken = {"PYTHONPATH": str(tmp_path)}
    with Gateway(endpoints=["127.0.0.1:1"], workers=1, env=broken) as it:
        why = last_line(it, 70)
    assert "giving up, workers keep dying before they are ready" in why
    assert "worker of slot 0 ended: " in why or "no event loop" in why


def test_a_killed_worker_is_no_failed_start(tmp_path: Path) -> None:
    """A stop during the start ends with 0 and without an error."""
    with Gateway(f"--admin-addr=unix:{tmp_path / 'a'}", endpoints=["127.0.0.1:1"]) as it:
        it.wait_line("starting")
        it.signal(signal.SIGTERM)
        assert it.process.wait(60) == 0
        assert [line for line in it.lines() if line["level"] == "error"] == []


@pytest.mark.parametrize(
    ("prefix", "said"),
    [
        (["prlimit", "--nofile=5:5"], "expected a higher limit of open files"),
        (REFUSED, "expected it to be allowed (RestrictAddressFamilies= of the unit)"),
    ],
)
@pytest.mark.parametrize("command", ["check", "start"])
def test_no_event_loop_can_be_made(command: str, prefix: list[str], said: str) -> None:
    """One line, whatever the interpreter has to say of half a loop and of who was to run in it."""
    words = [*prefix, *COMMAND, command, "--endpoints=127.0.0.1:1"]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert said in ended.stderr
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
