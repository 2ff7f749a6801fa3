"""Round-robin and least-sessions, compared with a real gateway and real clients."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from tests.backends import Backend, greet
from tests.balance import LEAST_SESSIONS, ROUND_ROBIN
from tests.gateway import running

RATE, FOR_S, SETTLED_S = 60.0, 8.0, 4.0
LASTING_S = {"a": 0.3, "b": 0.3, "c": 3.0}
"""Sessions on ``c`` last ten times longer."""


async def sample(port: int) -> dict[str, float]:
    """Open RATE sessions a second and keep each as long as its endpoint asks; means by endpoint."""
    held: Counter[str] = Counter(dict.fromkeys(LASTING_S, 0))
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    sums: Counter[str] = Counter()
    samples = 0

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        name = (await reader.readline()).decode().strip()
        held[name] += 1
        await asyncio.sleep(LASTING_S[name])
        held[name] -= 1
        writer.close()
        await writer.wait_closed()

    async with asyncio.TaskGroup() as group:
        for i in range(int(RATE * FOR_S)):
            await asyncio.sleep(began_at + i / RATE - loop.time())
            group.create_task(client())
            if i / RATE >= SETTLED_S:
                samples += 1
                sums.update(held)
    return {name: sums[name] / samples for name in LASTING_S}


@pytest.mark.slow(seconds=24)
def test_a_slow_endpoint_fills_up_or_does_not() -> None:
    """With round-robin it holds most of all sessions, with least-sessions about a third."""
    shares = {}
    for balance in (ROUND_ROBIN, LEAST_SESSIONS):
        backends = [Backend(greet, name=name) for name in LASTING_S]
        try:
            addresses = [backend.address for backend in backends]
            with running(f"--balance={balance}", endpoints=addresses, workers=4) as gateway:
                means = asyncio.run(sample(gateway.port))
        finally:
            for backend in backends:
                backend.stop()
        print(balance, {name: round(mean) for name, mean in means.items()})
        shares[balance] = means["c"] / sum(means.values())
    # Five sixths; less where a busy machine delays the short ones.
    assert shares[ROUND_ROBIN] > 0.55
    assert shares[LEAST_SESSIONS] < 0.5
