"""Clients for tests: plain blocking sockets."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tests.support import PATIENCE

Address = tuple[str, int]


def connect(address: Address, timeout_s: float = 60.0) -> socket.socket:
    """A connection; each of its calls fails after so long, and later where other tests run."""
    return socket.create_connection(address, timeout_s * PATIENCE)


def read_line(sock: socket.socket) -> str:
    """One line, without its newline; "" at the end of the stream."""
    line = b""
    while not line.endswith(b"\n"):
        byte = sock.recv(1)
        if not byte:
            break
        line += byte
    return line.decode().strip()


def read_exactly(sock: socket.socket, size: int) -> bytes:
    """``size`` bytes, or fewer if the stream ends."""
    data = bytearray()
    while len(data) < size and (chunk := sock.recv(min(size - len(data), 1 << 16))):
        data += chunk
    return bytes(data)


def talk(sock: socket.socket, text: bytes = b"hello") -> None:
    """Say something to an echo, and hear it."""
    sock.sendall(text)
    heard = b""
    while len(heard) < len(text):
        data = sock.recv(len(text) - len(heard))
        assert data, f"the stream ended after {heard!r}"
        heard += data
    assert heard == text


def asked(address: Address, timeout_s: float = 60.0) -> str:
    """Who answers at ``address``: connect, read the greeting, leave."""
    with connect(address, timeout_s) as sock:
        return read_line(sock)


def greeted(address: Address) -> tuple[socket.socket, str]:
    """A session, and what it is greeted with."""
    sock = connect(address)
    return sock, read_line(sock)


def echoes(address: Address, timeout_s: float = 60.0) -> bool:
    """Whether a fresh connection gets a byte back."""
    try:
        with connect(address, timeout_s) as sock:
            sock.sendall(b"?")
            return sock.recv(1) == b"?"
    except OSError:
        return False


def reset(sock: socket.socket) -> None:
    """Close with a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@contextmanager
def many(address: Address, count: int, timeout_s: float = 60.0) -> Iterator[list[socket.socket]]:
    """``count`` connections, closed afterwards."""
    with ExitStack() as stack:
        yield [stack.enter_context(connect(address, timeout_s)) for _ in range(count)]


@contextmanager
def black_hole() -> Iterator[Address]:
    """An address on loopback that answers no SYN: a listener whose queue is full."""
    with ExitStack() as stack:
        hole = stack.enter_context(socket.socket())
        hole.bind(("127.0.0.1", 0))
        hole.listen(0)
        address: Address = hole.getsockname()
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(address)
        yield address
