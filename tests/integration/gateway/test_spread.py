"""Few, long sessions are spread evenly over the workers, however the kernel hashes them."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from supervisor.cli.admin_client import fetch_status
from tests.backends import Backend, greet
from tests.clients import connect, read_line
from tests.gateway import Gateway, running
from tests.support import free_port, wait_until

TRIES = 6


@contextlib.contextmanager
def eight_workers() -> Iterator[tuple[Gateway, str]]:
    admin = f"127.0.0.1:{free_port()}"
    with Backend(greet, name="b") as backend:
        flag = f"--admin-addr={admin}"
        with running(flag, endpoints=[backend.address], workers=8) as gateway:
            gateway.wait_line("admin address is open")
            yield gateway, admin


def held(admin: str) -> list[int]:
    return [worker["sessions"] for worker in fetch_status([admin])["workers"]]


def test_one_after_the_other() -> None:
    """16 sessions over 8 workers: about two each, where the hash alone leaves one without any.

    The fullest of eight has four of them by the hash alone. A worker that the machine leaves
    without CPU gets no client from others, so the mean of several tries counts.
    """
    fullest, empty = [], 0
    with eight_workers() as (gateway, admin):
        for _ in range(TRIES):
            with contextlib.ExitStack() as stack:
                for _ in range(16):
                    client = stack.enter_context(connect(gateway.address))
                    assert read_line(client) == "b"
                wait_until(lambda: sum(held(admin)) == 16, what="every worker has reported")
                fullest.append(max(held(admin)))
                empty += held(admin).count(0)
            wait_until(lambda: sum(held(admin)) == 0, what="all sessions have ended")
    assert sum(fullest) / TRIES <= 3, fullest
    assert empty <= TRIES / 2


@pytest.mark.slow
@pytest.mark.parametrize(("count", "most"), [(16, 4), (64, 12)])
def test_all_at_once(count: int, most: int) -> None:
    """A burst is spread too, though the workers decide at the same moment."""
    with eight_workers() as (gateway, admin), contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.socket()) for _ in range(count)]
        for client in clients:
            client.setblocking(False)
            client.connect_ex(gateway.address)
        wait_until(lambda: sum(held(admin)) == count, what="every worker has reported")
        assert max(held(admin)) <= most
