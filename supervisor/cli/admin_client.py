"""Requests to the admin address of a running gateway, for ``status``, ``reload`` and ``check``."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Sequence
from typing import Any

TIMEOUT_S = 5.0


class UnreachableError(Exception):
    """No gateway answers there; the text says which addresses were tried and what each said."""


def fetch_status(addresses: Sequence[str]) -> dict[str, Any]:
    """The status document from the first address that gives one; UnreachableError if none does."""
    if not addresses:
        raise UnreachableError(
            "no admin address: give --admin-addr, GATEWAY_ADMIN_ADDR or admin-addr in the config "
            "file, as the running gateway has it"
        )
    failures = []
    for address in addresses:
        try:
            return _get(address)
        except (OSError, http.client.HTTPException, ValueError) as error:
            failures.append(f"{address}: {_why(error)}")
    raise UnreachableError("no gateway answers at " + "; ".join(failures))


def _get(address: str) -> dict[str, Any]:
    connection = _Connection(address)
    try:
        connection.request("GET", "/status")
        response = connection.getresponse()
        if response.status != 200:
            said = response.read(1000).decode("utf-8", "replace").partition("\n")[0]
            raise ValueError(f"answered {response.status} {response.reason}: {said}")
        document = json.loads(response.read())
        if not isinstance(document, dict) or "uptime_s" not in document:
            raise ValueError("what answers is no etcd-gateway")
        return document
    finally:
        connection.close()


class _Connection(http.client.HTTPConnection):
    """An HTTP connection to ``host:port`` or ``unix:/path``."""

    def __init__(self, address: str) -> None:
        self._path = address.removeprefix("unix:") if address.startswith("unix:") else ""
        host, _, port = ("localhost", "", "80") if self._path else address.rpartition(":")
        host = host.strip("[]")
        host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
        super().__init__(host, int(port), timeout=TIMEOUT_S)

    def connect(self) -> None:
        if not self._path:
            super().connect()
            return
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(self._path)


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {TIMEOUT_S:g} s"
    if isinstance(error, json.JSONDecodeError):
        return "what answers is no etcd-gateway"
    text = error.strerror if isinstance(error, OSError) else str(error)
    return text or repr(error)
