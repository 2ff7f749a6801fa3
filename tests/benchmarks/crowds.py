"""Loads of many sessions at once, each a program of its own so that it can have its own CPU.

``python -m tests.benchmarks.crowds LOAD PORT SESSIONS SECONDS`` prints one line of JSON:

- ``burst``: SESSIONS clients connect as fast as they can and ask once each. ``last_s`` is the time
  from the first connect until the last one has its answer.
- ``sparse``: SESSIONS open sessions, each of which asks once a second. ``count`` answers came in
  SECONDS; the load prints ``ready`` when the sessions are SETTLE_S old, and waits for a line before
  it begins.
- ``fan-out``: the program is the endpoint as well, listens on PORT + 1 and prints ``ready``. The
  endpoint writes to SESSIONS clients at once, again and again; ``last_s`` is the median time until
  the last client has it, ``count`` the deliveries.
"""

from __future__ import annotations

import json
import selectors
import socket
import statistics
import sys
import time
from collections import deque
from collections.abc import Mapping

HOST = "127.0.0.1"
REQUEST = b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n"
EVENT = b"e" * 200
PERIOD_S = 1.0
ROUNDS = 50
SETTLE_S = 3.0
"""What a proxy does once for each session is over by then; that is another measure's subject."""
_LIMIT_S = 60.0


def burst(port: int, sessions: int, seconds: float) -> Mapping[str, float]:
    del seconds
    selector = selectors.EpollSelector()
    began_at = time.monotonic()
    for _ in range(sessions):
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex((HOST, port))
        selector.register(client, selectors.EVENT_WRITE)
    connected_s = time.monotonic() - began_at
    left = sessions
    while left:
        for key, mask in selector.select(1.0):
            client = key.fileobj  # type: ignore[assignment]
            if mask & selectors.EVENT_WRITE:
                client.sendall(REQUEST)
                selector.modify(client, selectors.EVENT_READ)
            else:
                if not client.recv(4096):
                    raise RuntimeError("a client of the burst was closed without an answer")
                selector.unregister(client)
                client.close()
                left -= 1
        if time.monotonic() - began_at > _LIMIT_S:
            raise RuntimeError(f"{left} of {sessions} clients of the burst have no answer")
    return {"last_s": time.monotonic() - began_at, "connected_s": connected_s, "count": sessions}


def sparse(port: int, sessions: int, seconds: float) -> Mapping[str, float]:
    clients = [_client(port) for _ in range(sessions)]
    selector = selectors.EpollSelector()
    for client in clients:
        client.sendall(REQUEST)
        client.recv(4096)
        client.setblocking(False)
        selector.register(client, selectors.EVENT_READ)
    time.sleep(SETTLE_S)
    print("ready", flush=True)
    sys.stdin.readline()
    now = time.monotonic()
    due = deque((now + PERIOD_S * i / sessions, client) for i, client in enumerate(clients))
    until = now + seconds
    count = 0
    while now < until:
        while due[0][0] <= now:
            at, client = due.popleft()
            client.sendall(REQUEST)
            due.append((at + PERIOD_S, client))
        for key, _ in selector.select(max(0.0, due[0][0] - now)):
            key.fileobj.recv(4096)  # type: ignore[union-attr]
            count += 1
        now = time.monotonic()
    return {"count": count}


def fan_out(port: int, sessions: int, seconds: float) -> Mapping[str, float]:
    del seconds
    endpoint = socket.create_server((HOST, port + 1), backlog=4096)
    print("ready", flush=True)
    sys.stdin.readline()
    selector = selectors.EpollSelector()
    upstreams = []
    for _ in range(sessions):
        client = _client(port)
        client.sendall(b"watch")
        upstream, _ = endpoint.accept()
        upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        upstream.recv(100)
        upstreams.append(upstream)
        client.setblocking(False)
        selector.register(client, selectors.EVENT_READ)
    print("connected", flush=True)
    sys.stdin.readline()
    last = []
    for _ in range(ROUNDS):
        began_at = time.monotonic()
        for upstream in upstreams:
            upstream.send(EVENT)
        missing = sessions * len(EVENT)
        while missing:
            for key, _ in selector.select(1.0):
                missing -= len(key.fileobj.recv(4096))  # type: ignore[union-attr]
            if time.monotonic() - began_at > _LIMIT_S:
                raise RuntimeError(f"{missing} bytes of the fan-out did not arrive")
        last.append(time.monotonic() - began_at)
    return {"last_s": statistics.median(last), "count": sessions * ROUNDS}


def _client(port: int) -> socket.socket:
    client = socket.create_connection((HOST, port), timeout=10.0)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


LOADS = {"burst": burst, "sparse": sparse, "fan-out": fan_out}

if __name__ == "__main__":
    name, port, sessions, seconds = sys.argv[1:]
    print(json.dumps(LOADS[name](int(port), int(sessions), float(seconds))), flush=True)
