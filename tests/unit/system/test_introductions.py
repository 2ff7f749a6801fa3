"""Whatever the master dials begins with the header that --proxy-out promises to endpoints."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator

import pytest

from gateway.core.proxy_protocol import SIGNATURE
from supervisor.cli.dials import dial
from supervisor.core.config import Config
from supervisor.core.discovery.admission import Candidate
from supervisor.core.health.probing import Plan, ProbeKind
from supervisor.discovery.tls_gate import Gate
from supervisor.health.probe import Probe
from supervisor.system.connections import dial_as
from supervisor.system.etcd_client import EtcdConnection, EtcdError, Peer
from supervisor.system.tls_contexts import TlsContexts, unverified
from tests.servers import serving
from tests.support import free_port, wait_until

LOCAL = SIGNATURE + b"\x20\0\0\0"
HOST = "127.0.0.1"

Visit = Callable[[int], Awaitable[object]]


async def ask_etcd(port: int) -> None:
    with contextlib.suppress(EtcdError):
        async with EtcdConnection(
            Peer(address=HOST, port=port, server_name="a.test"), TlsContexts()
        ):
            pass


def probe(kind: ProbeKind, port_of_checks: int | None = None) -> Visit:
    async def visit(port: int) -> None:
        plan = Plan(kind=kind, server_name="a.test", verify=False, port=port_of_checks)
        one = Probe(HOST, port, plan, TlsContexts())
        await one.run(30.0)  # a busy machine is long before it says anything
        await one.leave()
        one.close()

    return visit


VISITS: dict[str, Visit] = {
    "the TLS gate": lambda port: Gate("a.test").verify(Candidate("a.test:1", HOST, port)),
    "the member list": ask_etcd,
    "a tls probe": probe(ProbeKind.TLS),
    "an http probe": probe(ProbeKind.HTTP),
    "an https probe": probe(ProbeKind.HTTPS),
    "an etcd probe": probe(ProbeKind.ETCD),
}


@pytest.fixture(autouse=True)
def by_version_2() -> Iterator[None]:
    """Other tests of this process dial as they did."""
    dial_as(Config(proxy_out="v2"))
    yield
    dial_as(Config())


def begins(visit: Visit, port: int = 0) -> list[bytes]:
    """What each connection of the visit begins with."""
    heard: list[bytes] = []

    def listen(conn: socket.socket) -> None:
        conn.settimeout(20)
        with contextlib.suppress(OSError):
            heard.append(conn.recv(len(LOCAL)))
            conn.shutdown(socket.SHUT_RDWR)  # nobody waits for an answer

    with serving(listen, port=port) as server:
        asyncio.run(asyncio.wait_for(visit(server.port), 60))
        wait_until(lambda: heard)
    return heard


@pytest.mark.parametrize("name", VISITS)
def test_everything_that_is_dialed_is_introduced(name: str) -> None:
    """Each says LOCAL first: an endpoint that requires a header requires it of everybody."""
    assert set(begins(VISITS[name])) == {LOCAL}


@pytest.mark.parametrize("tls", [False, True])
def test_a_dial_of_check_is_not_seen(tls: bool) -> None:
    """There is nobody to say it to: the program accepts nothing, whether it speaks TLS or not."""
    with serving(lambda _: None) as server:
        context = unverified() if tls else None
        assert not asyncio.run(dial(HOST, server.port, 2.0, asyncio.Semaphore(1), context)).error
        assert server.accepted == 0


def test_a_port_of_its_own_for_checks() -> None:
    """A health check of another port than the endpoint's says nothing of the sort."""
    port = free_port()
    (first,) = begins(lambda _: probe(ProbeKind.HTTP, port)(free_port()), port)
    assert first.startswith(b"GET ")
