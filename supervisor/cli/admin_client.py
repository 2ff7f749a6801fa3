"""Requests to the admin address of a running gateway, for the commands that ask it."""

from __future__ import annotations

import http.client
import json
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from gateway.core.address import HostPort, split_admin
from gateway.core.unix_address import UnixAddress

TIMEOUT_S = 5.0
"""For a whole answer, however slowly it comes."""

SESSIONS_TIMEOUT_S = 12.0
"""The same for the list of sessions: a little more than what the gateway gives a connection of its
admin address."""


STATUS_KEYS = (
    "version", "pid", "started_at", "uptime_s", "state", "listen", "discovery", "reload",
    "endpoints", "workers", "totals",
)  # fmt: skip
"""Those by which our own status document is known, of whatever release."""

_UCRED = struct.Struct("3i")
"""struct ucred: pid, uid, gid."""

SESSIONS_KEYS = ("listen", "total", "next", "clients", "sessions")


class UnreachableError(Exception):
    """No gateway answers there; the text says which addresses were tried and what each said."""


def fetch_status(addresses: Sequence[str]) -> dict[str, Any]:
    """The status document from the first address that gives one; UnreachableError if none does."""
    return _fetch(addresses, "/status", keys=STATUS_KEYS, timeout_s=TIMEOUT_S)


def fetch_sessions(addresses: Sequence[str], query: Mapping[str, str]) -> dict[str, Any]:
    """A page of the list of sessions, in the same way."""
    path = f"/sessions?{urlencode(query)}"
    return _fetch(addresses, path, keys=SESSIONS_KEYS, timeout_s=SESSIONS_TIMEOUT_S)


def is_of_this_host(admin_addr: str) -> bool:
    """Whether a gateway that answers there runs on this host."""
    where = split_admin(admin_addr)
    if isinstance(where, UnixAddress):
        return True
    host = _dialed(where.host)
    return host in ("localhost", "::1") or host.startswith("127.")


def _dialed(host: str) -> str:
    """Whom to ask where the gateway serves every address of this host."""
    return {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104


def find_listener(admin_addr: str) -> int:
    """The process that listens at a UNIX admin address, as this host's kernel knows it; else 0.

    It is 0 also for a process that is not in our pid namespace (unix(7), SO_PEERCRED).
    """
    if not isinstance(split_admin(admin_addr), UnixAddress):
        return 0
    connection = _Connection(admin_addr, TIMEOUT_S)
    try:
        connection.connect()
        found = connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        return int(_UCRED.unpack(found)[0])
    except OSError:
        return 0
    finally:
        connection.close()


def _fetch(
    addresses: Sequence[str], path: str, *, keys: Sequence[str], timeout_s: float
) -> dict[str, Any]:
    """``keys``: those by which our own document is known."""
    failures = []
    for address in addresses:
        try:
            return _get(address, path, keys, timeout_s)
        except (OSError, http.client.HTTPException, ValueError) as error:
            failures.append(f"{address}: {_why(error, timeout_s)}")
    raise UnreachableError("no gateway answers at " + "; ".join(failures))


def _get(address: str, path: str, keys: Sequence[str], timeout_s: float) -> dict[str, Any]:
    connection = _Connection(address, timeout_s)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        if response.status != 200:
            said = response.read(1000).decode("utf-8", "replace").partition("\n")[0]
            raise ValueError(f"answered {response.status} {response.reason}: {said}")
        data = response.read()
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict) or not document.keys() >= set(keys):
            raise ValueError("what answers is no etcd-gateway")
        return document
    finally:
        connection.close()


class _Socket(socket.socket):
    """Reads until one instant, however little each read brings; TimeoutError after it."""

    ends_at = 0.0

    def recv_into(self, *args: Any) -> int:
        left_s = self.ends_at - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        self.settimeout(left_s)
        return super().recv_into(*args)


class _Connection(http.client.HTTPConnection):
    """An HTTP connection to ``host:port`` or ``unix:/path``, for ``timeout_s`` from now on."""

    def __init__(self, address: str, timeout_s: float) -> None:
        where = split_admin(address)
        self._path = where.path if isinstance(where, UnixAddress) else ""
        if isinstance(where, UnixAddress):
            where = HostPort("localhost", 80)
        super().__init__(_dialed(where.host), where.port, timeout=timeout_s)
        self._ends_at = time.monotonic() + timeout_s

    def connect(self) -> None:
        if self._path:
            self.sock = _Socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(self.timeout)
            self.sock.connect(self._path)
        else:
            super().connect()
            self.sock = _Socket(fileno=self.sock.detach())
        self.sock.ends_at = self._ends_at


def _why(error: Exception, timeout_s: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout_s:g} s"
    if isinstance(error, http.client.RemoteDisconnected):
        return "the connection was closed without an answer"
    if isinstance(error, http.client.IncompleteRead):
        return "the answer ends too early, expected the whole document"
    if isinstance(error, http.client.HTTPException):
        return "what answers is no etcd-gateway"
    text = error.strerror if isinstance(error, OSError) else str(error)
    return text or repr(error)
