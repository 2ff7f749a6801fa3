"""What the tests of real clusters call a fault of the gateway, and what a fault of etcd."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.backends import Backend
from tests.etcd import Cluster, PortTakenError, needs_etcd
from tests.etcd_answers import insist, insist_put, is_answer
from tests.support import free_port

pytestmark = [needs_etcd, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster() as cluster:
        yield cluster


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("rpc error: code = Unavailable desc = etcdserver: request timed out", True),
        ("Error: etcdserver: leader changed", True),
        ("rpc error: code = Unknown desc = raft: stopped", True),
        ("rpc error: code = Unavailable desc = transport is closing", False),
        ("rpc error: code = Unavailable desc = error reading from server: EOF", False),
        ("desc = error reading from server: read tcp: connection reset by peer", False),
        ("last connection error: dial tcp 127.0.0.1:1: connect: connection refused", False),
        ("Error: context deadline exceeded", False),
    ],
)
def test_answers_are_told_from_connections(text: str, is_one: bool) -> None:
    """In the words of etcdctl 3.4 and 3.5; a connection on which nobody answers is no answer."""
    assert is_answer(text) is is_one


async def hang_up(_: Backend, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An HTTP/2 server that accepts a request and ends."""
    await reader.read(1000)
    writer.write(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
    await reader.read(1000)


def test_a_connection_that_breaks_is_not_tried_again(cluster: Cluster) -> None:
    """As long as no member ended."""
    with Backend(hang_up) as backend, pytest.raises(AssertionError, match="a connection failed"):
        insist_put(cluster, backend.address, "key", "value")


def test_a_connection_that_ends_with_its_member_is_tried_again() -> None:
    """And the request succeeds with the others."""
    with Cluster() as cluster:
        through = ",".join(cluster.endpoints)
        writer = threading.Thread(
            target=lambda: insist_put(cluster, through, "key", "value"), daemon=True
        )
        writer.start()
        cluster.kill(0)
        writer.join(60)
        assert insist(cluster, through, "get", "--print-value-only", "key").strip() == "value"


def test_a_cluster_takes_other_ports_when_one_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program beside the tests may take a port between its choice and the start of a member."""
    with contextlib.ExitStack() as stack:
        taken: list[int] = []

        def snatched_port() -> int:
            port = free_port()
            if not taken:
                thief = stack.enter_context(socket.create_server(("127.0.0.1", port)))
                taken.append(thief.getsockname()[1])
            return port

        monkeypatch.setattr("tests.etcd.free_port", snatched_port)
        cluster = stack.enter_context(Cluster())
        assert taken[0] not in cluster.client_ports
        insist_put(cluster, cluster.endpoints[0], "key", "value")


def test_ports_that_must_be_these_are_not_changed() -> None:
    """Whoever names the ports is told that one is taken."""
    with socket.create_server(("127.0.0.1", free_port())) as thief:
        ports = [thief.getsockname()[1], free_port(), free_port()]
        with pytest.raises(PortTakenError, match="address already in use"):
            Cluster(client_ports=ports)
