"""Listen addresses: literals stay as they are, names become the addresses that this host has."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.core.address import Address, HostPort
from supervisor.core.discovery.system_names import Files
from supervisor.discovery import listen_addresses
from supervisor.discovery.listen_addresses import (
    UnresolvedListenError,
    resolve_listen,
    wait_for_listen,
)
from supervisor.discovery.targets import BadTargetError
from tests.dns import Fault, NameServer
from tests.logbook import Logbook
from tests.support import eventually

ABSENT = ("192.0.2.1", "2001:db8::1")
"""Addresses for documentation; no host has them (RFC 5737, RFC 3849)."""


@pytest.fixture
def files(tmp_path: Path) -> Files:
    hosts = "127.0.0.1 localhost both\n::1 localhost6\n"
    hosts += "".join(f"{address} both nowhere\n" for address in ABSENT)
    (tmp_path / "hosts").write_text(hosts)
    (tmp_path / "resolv.conf").write_text("options attempts:1 timeout:1\n")
    return Files(str(tmp_path / "hosts"), str(tmp_path / "resolv.conf"))


@pytest.fixture
def ns() -> Iterator[NameServer]:
    with NameServer() as server:
        yield server


def resolve(files: Files, *listen: Address, log: Logbook | None = None) -> tuple[Address, ...]:
    return asyncio.run(resolve_listen(listen, files=files, log=log))


def test_names_become_literals(files: Files) -> None:
    """A name becomes its addresses; an empty host and a literal stay."""
    assert resolve(files, HostPort("localhost", 1), HostPort("", 2), HostPort("::1", 3)) == (
        HostPort("127.0.0.1", 1),
        HostPort("", 2),
        HostPort("::1", 3),
    )


def test_addresses_of_a_name_that_this_host_does_not_have_are_left_out(files: Files) -> None:
    """They are named in the log, and the rest of the name is served."""
    log = Logbook()
    assert resolve(files, HostPort("both", 1), log=log) == (HostPort("127.0.0.1", 1),)
    said = log.said("listen address left out")
    assert [line["address"] for line in said] == list(ABSENT)
    assert {line["listen"] for line in said} == {"both:1"}


def test_literals_and_names_without_any_address_here_stay(files: Files) -> None:
    """The bind fails then, and says why."""
    log = Logbook()
    absent = HostPort(ABSENT[0], 1)
    assert resolve(files, absent, log=log) == (absent,)
    assert len(resolve(files, HostPort("nowhere", 1), log=log)) == len(ABSENT)
    assert not log.lines


def test_a_name_that_does_not_exist_is_wrong_usage(files: Files, ns: NameServer) -> None:
    """The nameserver says so definitely."""
    with pytest.raises(BadTargetError, match=r"--listen-addr gw\.test:1: cannot resolve"):
        asyncio.run(resolve_listen((HostPort("gw.test", 1),), (ns.address,), files=files))


@pytest.mark.parametrize("fault", [Fault.SERVFAIL, Fault.REFUSED, Fault.HANG_UP])
def test_a_failure_that_may_pass_is_no_wrong_usage(
    files: Files, ns: NameServer, fault: Fault
) -> None:
    """It is told apart, so that the caller can try again."""
    ns.faults[""] = fault
    with pytest.raises(UnresolvedListenError, match=r"gw\.test"):
        asyncio.run(resolve_listen((HostPort("gw.test", 1),), (ns.address,), files=files))


def test_waiting_ends_when_the_name_resolves(
    ns: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every attempt in vain is logged; the given nameserver is asked."""
    monkeypatch.setattr(listen_addresses, "FIRST_RETRY_S", 0.01)
    ns.set("gw.test", "A", "127.0.0.1")
    ns.faults[""] = Fault.SERVFAIL
    log = Logbook()

    async def scenario() -> tuple[Address, ...]:
        listen = (HostPort("gw.test", 7),)
        waiting = asyncio.create_task(wait_for_listen(listen, (ns.address,), log, draw=lambda _: 0))
        await eventually(lambda: len(log.lines) >= 2)
        ns.faults.clear()
        return await waiting

    assert asyncio.run(scenario()) == (HostPort("127.0.0.1", 7),)
    said = log.said("listen address does not resolve yet, trying again")
    assert len(said) >= 2
    assert "gw.test:7" in said[0]["error"]
