"""An open-loop client: connections begin when they are due, whatever became of those before.

``python -m tests.stress.client HOST PORT RATE SECONDS`` prints one JSON object at the end.
Each connection waits for the endpoint's greeting, sends a line and reads it back.
A loss is told with its own local port, so that the test can look up who had accepted it.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import sys
import time
from collections import Counter

TIMEOUT_S = 30.0
"""Who is held by nobody waits for ever; the rest is for a machine that is busy."""


class Run:
    def __init__(self, host: str, port: int) -> None:
        self.address = (host, port)
        self.outcomes: Counter[str] = Counter()
        self.lost: list[tuple[str, int]] = []
        self.waits_s: list[float] = []

    async def connect(self) -> None:
        """One connection; ``refused``, ``queued`` (lost before the greeting), ``served``..."""
        loop = asyncio.get_running_loop()
        begin = time.monotonic()
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.setblocking(False)
            stage = "connect"
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    await loop.sock_connect(sock, self.address)
                    stage = "queued"
                    if not await loop.sock_recv(sock, 1):
                        raise ConnectionResetError
                    self.waits_s.append(time.monotonic() - begin)
                    stage = "in-service"
                    await loop.sock_sendall(sock, b"line\n")
                    if not await loop.sock_recv(sock, 16):
                        raise ConnectionResetError
                outcome = "ok"
            except ConnectionRefusedError:
                outcome = "refused"
            except TimeoutError:
                outcome = f"timeout-{stage}"
            except OSError:
                outcome = stage
            if outcome not in ("ok", "refused"):
                self.lost.append((outcome, sock.getsockname()[1]))
        self.outcomes[outcome] += 1

    async def run(self, rate: float, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        begin = due = loop.time()
        async with asyncio.TaskGroup() as group:
            while due < begin + seconds:
                await asyncio.sleep(max(due - loop.time(), 0.0))
                group.create_task(self.connect())
                due += random.expovariate(rate)


def main() -> None:
    host, port, rate, seconds = sys.argv[1:]
    run = Run(host, int(port))
    asyncio.run(run.run(float(rate), float(seconds)))
    waits = sorted(run.waits_s) or [0.0]
    figures = {
        "outcomes": run.outcomes,
        "lost": run.lost,
        "p50_ms": 1e3 * waits[len(waits) // 2],
        "p99_ms": 1e3 * waits[len(waits) * 99 // 100],
        "max_ms": 1e3 * waits[-1],
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
