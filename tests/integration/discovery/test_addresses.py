"""A name with several addresses: each of them is a place of its own."""

from __future__ import annotations

import contextlib
import json
import urllib.request
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.backends import Backend, greet
from tests.clients import asked, greeted
from tests.dns import NameServer
from tests.gateway import Gateway, running
from tests.support import PATIENCE, free_port, wait_until

ADDRESSES = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
SHARE = 20


@pytest.fixture
def backends() -> Iterator[dict[str, Backend]]:
    """One backend for each address, all on one port."""
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(Backend(greet, name=ADDRESSES[0], host=ADDRESSES[0]))
        others = {
            address: stack.enter_context(
                Backend(greet, name=address, host=address, port=first.port)
            )
            for address in ADDRESSES[1:]
        }
        yield {ADDRESSES[0]: first, **others}


@pytest.fixture
def ns() -> Iterator[NameServer]:
    with NameServer() as server:
        server.set("web.test", "A", *ADDRESSES)
        yield server


@contextlib.contextmanager
def serving(ns: NameServer, port: int, *flags: str) -> Iterator[tuple[Gateway, str]]:
    admin = f"127.0.0.1:{free_port()}"
    with running(
        f"--endpoints=web.test.:{port}",
        f"--nameserver={ns.address}",
        f"--admin-addr={admin}",
        *flags,
    ) as gateway:
        yield gateway, admin


def status(admin: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://{admin}/status", timeout=20 * PATIENCE) as answer:
        endpoint: dict[str, Any] = json.load(answer)["endpoints"][0]
        return endpoint


@pytest.mark.parametrize("balance", ["round-robin", "least-sessions"])
def test_sessions_are_spread_over_all_addresses(
    ns: NameServer, backends: dict[str, Backend], balance: str
) -> None:
    """60 sessions are 20 for each of three addresses, and the status counts them there."""
    port = backends[ADDRESSES[0]].port
    with (
        serving(ns, port, "--workers=1", f"--balance={balance}") as (gateway, admin),
        contextlib.ExitStack() as stack,
    ):
        names = Counter[str]()
        for _ in range(SHARE * len(ADDRESSES)):
            sock, name = greeted(gateway.address)
            stack.enter_context(sock)
            names[name] += 1
        assert names == dict.fromkeys(ADDRESSES, SHARE)
        wait_until(lambda: status(admin)["sessions"] == SHARE * len(ADDRESSES))
        found = status(admin)
        assert found["addresses"] == list(ADDRESSES)
        assert {a: s["sessions"] for a, s in found["address_states"].items()} == names


def test_a_dead_address_gets_no_sessions_and_the_others_share_them(
    ns: NameServer, backends: dict[str, Backend]
) -> None:
    """It is inactive, with its error, while the endpoint is active; and it comes back."""
    port = backends[ADDRESSES[0]].port
    backends[ADDRESSES[1]].stop()
    with serving(ns, port, "--workers=1", "--health-interval=300ms") as (gateway, admin):
        wait_until(lambda: status(admin)["address_states"][ADDRESSES[1]]["state"] == "inactive")
        found = status(admin)
        assert found["state"] == "active"
        assert "refused" in found["address_states"][ADDRESSES[1]]["last_error"]
        assert found["address_states"][ADDRESSES[0]]["state"] == "active"
        names = Counter(asked(gateway.address) for _ in range(20))
        assert names == {ADDRESSES[0]: 10, ADDRESSES[2]: 10}
        with Backend(greet, name=ADDRESSES[1], host=ADDRESSES[1], port=port):
            wait_until(lambda: status(admin)["address_states"][ADDRESSES[1]]["state"] == "active")
            wait_until(lambda: asked(gateway.address) == ADDRESSES[1])
