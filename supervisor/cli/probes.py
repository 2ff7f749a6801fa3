"""What the health check says of each endpoint, for the command ``check``.

An endpoint that can be dialed and fails its health check is inactive as soon as the gateway runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from gateway.core.records import dataclass
from supervisor.cli.dials import Checked
from supervisor.core.config import Config
from supervisor.core.health.probing import Plan, ProbeKind, Verdict, plan
from supervisor.health.probe import Probe
from supervisor.system.tls_contexts import TlsContexts

MAX_CONCURRENT = 16


@dataclass(frozen=True, slots=True)
class Unhealthy:
    """An address that can be dialed and fails its health check."""

    endpoint: str
    address: str
    error: str

    def __str__(self) -> str:
        where = "" if self.address in self.endpoint else f" ({self.address})"
        return f"{self.endpoint}{where}: {self.error}"


async def probe_all(config: Config, checked: Iterable[Checked]) -> tuple[Unhealthy, ...]:
    """Probe every address that can be dialed, unless a probe is no more than a dial."""
    slots = asyncio.Semaphore(MAX_CONCURRENT)
    contexts = TlsContexts()

    async def probe(name: str, address: str, port: int, how: Plan) -> Unhealthy | None:
        async with slots:
            error = await _probe(Probe(address, port, how, contexts), config.health_timeout_s)
        return Unhealthy(name, address, f"{error} (health check: {how.kind})") if error else None

    probes = [
        probe(each.endpoint.name, dial.address, each.endpoint.port, how)
        for each in checked
        if (how := plan(config, each.endpoint)).kind is not ProbeKind.TCP
        for dial in each.dials
        if not dial.error
    ]
    return tuple(each for each in await asyncio.gather(*probes) if each is not None)


async def _probe(probe: Probe, timeout_s: float) -> str:
    """Why it does not pass; "" if it does."""
    try:
        result = await probe.run(timeout_s)
        await probe.leave()
    finally:
        probe.close()
    return "" if result.verdict is Verdict.PASSED else result.error
