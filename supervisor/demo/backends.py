"""The plans of the demo's backends: how to start each, and how to learn who answered."""

from __future__ import annotations

import asyncio
import re
import socket
import sys
from pathlib import Path

from gateway.core.records import dataclass

HOST = "127.0.0.1"
NAMES = ("infra0", "infra1", "infra2")
_ANSWER_LIMIT_S = 3.0
_GREETER = str(Path(__file__).with_name("backend.py"))  # by its path: -m does not find the one file


class Reservation:
    """Ports of loopback that the kernel gives to no other program while this object lives.

    The sockets are bound and never listen: a connection to such a port is refused, and a program
    that binds it with SO_REUSEADDR gets it, again and again.
    """

    def __init__(self, count: int) -> None:
        self._sockets: list[socket.socket] = []
        for _ in range(count):
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            self._sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((HOST, 0))

    @property
    def ports(self) -> list[int]:
        return [sock.getsockname()[1] for sock in self._sockets]

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()


@dataclass(frozen=True, slots=True)
class Backend:
    """One backend: ``argv`` starts it so that it serves clients on ``port``."""

    name: str
    port: int
    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """What to send to learn who answers: the first group of ``answer`` is the identity."""

    request: bytes
    answer: re.Pattern[bytes]


WHO_GREETS = Question(
    b"GET / HTTP/1.0\r\nHost: cluster.test\r\n\r\n", re.compile(rb"X-Backend: (\S+)")
)
WHO_IS_MEMBER = Question(
    b"POST /v3/maintenance/status HTTP/1.0\r\nHost: cluster.test\r\nContent-Length: 2\r\n\r\n{}",
    re.compile(rb'"member_id":\s*"(\d+)"'),
)


def plan_greeters(ports: list[int]) -> tuple[Backend, ...]:
    """Three HTTP servers that say who they are."""
    return tuple(
        Backend(name, port, (sys.executable, "-P", _GREETER, name, str(port)))
        for name, port in zip(NAMES, ports, strict=True)
    )


def plan_members(program: str, ports: list[int], directory: Path) -> tuple[Backend, ...]:
    """A three-member etcd cluster; ``ports`` are those for clients, then those for peers."""
    client_ports, peer_ports = ports[: len(NAMES)], ports[len(NAMES) :]
    peers = {n: f"http://{HOST}:{p}" for n, p in zip(NAMES, peer_ports, strict=True)}
    cluster = ",".join(f"{name}={url}" for name, url in peers.items())
    members = []
    for name, port in zip(NAMES, client_ports, strict=True):
        url = f"http://{HOST}:{port}"
        flags = {
            "name": name,
            "data-dir": str(directory / name),
            "listen-client-urls": url,
            "advertise-client-urls": url,
            "listen-peer-urls": peers[name],
            "initial-advertise-peer-urls": peers[name],
            "initial-cluster": cluster,
            "initial-cluster-token": "demo",
        }
        argv = (program, *(f"--{flag}={value}" for flag, value in flags.items()))
        members.append(Backend(name, port, argv))
    return tuple(members)


async def ask(port: int, question: Question) -> str | None:
    """Who answers on ``port``; None if nobody does within a few seconds."""
    try:
        async with asyncio.timeout(_ANSWER_LIMIT_S):
            reader, writer = await asyncio.open_connection(HOST, port)
            try:
                writer.write(question.request)
                found = question.answer.search(await reader.read())
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return None
    return found[1].decode() if found else None
