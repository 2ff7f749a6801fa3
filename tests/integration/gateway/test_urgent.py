"""Urgent bytes: they travel in their place, on every path, in both directions."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.plane import Backend, Plane, read_all
from tests.support import wait_until

SIDES = ["client", "endpoint"]
SMALL, BULK = 3, 3 << 20


@contextlib.contextmanager
def session(side: str) -> Iterator[tuple[Plane, socket.socket, socket.socket]]:
    """The plane, the sending and the receiving end of one session."""
    with (
        Backend() as backend,
        Plane(backend.endpoint) as plane,
        plane.connect() as client,
        backend.accept() as server,
    ):
        client.sendall(b"?")
        assert server.recv(1) == b"?"
        yield (plane, client, server) if side == "client" else (plane, server, client)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("size", [SMALL, BULK], ids=["small", "bulk"])
@pytest.mark.parametrize("ends", [True, False], ids=["then the end", "stays open"])
def test_an_urgent_byte_stays_in_its_place(side: str, size: int, ends: bool) -> None:
    """The reader is late: everything waits in the gateway, and all of it arrives in order."""
    before, after = os.urandom(size), os.urandom(size)
    with session(side) as (plane, one, other):

        def send() -> None:
            one.sendall(before)
            one.send(b"!", socket.MSG_OOB)
            one.sendall(after)
            if ends:
                one.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        moved = [-1, -1]

        def waits() -> bool:
            each = plane.count().endpoints
            moved.append(sum(count.bytes_in + count.bytes_out for count in each.values()))
            return moved[-1] == moved[-2] == moved[-3] > 1

        wait_until(waits, 10, "nothing moves any more")
        if ends:
            got = read_all(other)
        else:
            got = b""
            while len(got) < 2 * size + 1:
                got += other.recv(1 << 20)
        sender.join(60)
        assert digest(got) == digest(before + b"!" + after)


@pytest.mark.parametrize("side", SIDES)
def test_many_urgent_bytes_in_a_stream_that_is_read(side: str) -> None:
    """Marks at random places of a bulk flow, between bytes of every size."""
    parts = [os.urandom(1 + (n * 7919) % 200_000) for n in range(60)]
    with session(side) as (_, one, other):

        def send() -> None:
            for part in parts:
                one.sendall(part)
                one.send(b"!", socket.MSG_OOB)
            one.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        got = read_all(other)
        sender.join(60)
        assert digest(got) == digest(b"".join(part + b"!" for part in parts))


def test_an_urgent_byte_that_comes_with_the_connection() -> None:
    """The endpoint greets with an urgent byte, before the gateway has done anything else."""
    with Backend() as backend, Plane(backend.endpoint) as plane, plane.connect() as client:
        with backend.accept() as server:
            server.send(b"!", socket.MSG_OOB)
            server.sendall(b"hello")
            server.shutdown(socket.SHUT_WR)
            assert read_all(client) == b"!hello"
