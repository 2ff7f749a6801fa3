"""Many gateways in front of one cluster: what each does alone must be good for all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests.backends import Backend, greet
from tests.clients import connect, read_line
from tests.gateway import READY, Gateway
from tests.long_tests import long
from tests.support import wait_until

MEMBERS = [f"127.77.0.{number}" for number in range(1, 5)]
PORT = 7023
"""Fixed addresses: a host's order is made from the endpoints' names, and chance has no place.

Not etcd's own port, which a developer's etcd may have.
"""


@contextlib.contextmanager
def cluster() -> Iterator[list[Backend]]:
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(Backend(greet, name=host, host=host, port=PORT)) for host in MEMBERS
        ]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("balance", ["round-robin", long("least-sessions")])
def test_first_sessions_of_24_hosts_are_spread(balance: str) -> None:
    """24 gateways over 4 members with one session each: no member has more than 9."""
    with cluster() as members, contextlib.ExitStack() as stack:
        gateways = [
            stack.enter_context(
                Gateway(
                    f"--host-seed=host {number}",
                    f"--balance={balance}",
                    "--health-check=off",
                    endpoints=[member.address for member in members],
                    workers=1,
                )
            )
            for number in range(24)
        ]
        wait_until(lambda: all(READY in each.text() for each in gateways), 240, "all are ready")
        clients = [stack.enter_context(connect(each.address)) for each in gateways]
        assert {read_line(client) for client in clients} == set(MEMBERS)
        assert max(member.connections for member in members) <= 9
