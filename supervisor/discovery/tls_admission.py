"""Which endpoints found by SRV passed the TLS check: checks who is due, and leaves out the rest."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from functools import partial

from supervisor.core.config import Config
from supervisor.core.discovery.admission import Admission, Candidate
from supervisor.core.discovery.endpoints import Discovered
from supervisor.core.discovery.resolution import Resolution
from supervisor.core.discovery.targets import describe_tls_check, tls_domain
from supervisor.discovery.means import Means
from supervisor.discovery.parallel import run_in_parallel
from supervisor.discovery.tls_gate import Gate


class TlsAdmission:
    """The TLS check of one configuration; owns its gate until :meth:`close`.

    ``before`` is that of the configuration before: its verdicts are kept if they still hold.
    """

    def __init__(self, config: Config, means: Means, *, before: TlsAdmission | None = None) -> None:
        """ValueError: a file that the check needs cannot be used; the text names the flag."""
        self._admission = Admission()
        self._gate: Gate | None = None
        self._check = describe_tls_check(config)
        if self._check:
            self._gate = Gate(
                tls_domain(config),
                ca_file=config.trusted_ca_file,
                cert_file=config.health_cert_file,
                key_file=config.health_key_file,
                timeout_s=config.health_timeout_s,
                max_concurrent=means.max_handshakes,
                shared_tls=means.shared_tls,
            )
        if before is not None and before._check == self._check:
            self._admission = before._admission.copy()

    @property
    def required(self) -> bool:
        """Whether endpoints found by SRV have to pass the check."""
        return self._gate is not None

    def remember(self, found: Sequence[Discovered]) -> None:
        """What a former master had in use had passed; it is checked again before long.

        Where none is required nobody is checked, and nobody must be waited for.
        """
        if self.required:
            self._admission.remember(found, asyncio.get_running_loop().time())

    def learn_from(self, tried: TlsAdmission) -> bool:
        """A configuration was tried and not taken; what its check found of our endpoints holds,
        if it is the same check as ours. Whether it is."""
        same = bool(self._check) and tried._check == self._check
        if same:
            self._admission.learn_from(tried._admission)
        return same

    def next_at(self) -> float:
        """When the next check is due, on the loop's clock; infinity if none ever is."""
        return self._admission.next_at()

    def check_again(self) -> None:
        """The files of the check changed: check now who did not pass with those before."""
        self._admission.hurry(asyncio.get_running_loop().time())

    async def close(self) -> None:
        """Let the checks under way end in order; begin no more."""
        if self._gate is not None:
            await self._gate.close()

    async def pause(self) -> None:
        """Let the checks under way end in order; begin no more until :meth:`resume`."""
        if self._gate is not None:
            await self._gate.pause()

    def resume(self) -> None:
        """Go on with the checks that wait."""
        if self._gate is not None:
            self._gate.resume()

    async def check(
        self,
        result: Resolution,
        *,
        everything: bool,
        renewed: bool,
        late: Callable[[Resolution], None],
    ) -> Resolution:
        """Check who is due, and leave out the endpoints that did not pass.

        ``everything``: check every endpoint again, however fresh its check is. ``renewed``: the SRV
        records were asked for just now. ``late`` gets who passed so far if the rest takes longer
        than EARLY_S. Without a check that is required, the result is as it was.
        """
        gate = self._gate
        if gate is None:
            return result
        now = asyncio.get_running_loop().time
        # Without endpoints, too: what is gone must not be waited for.
        candidates = self._admission.to_check(
            result.endpoints, now(), everything=everything, renewed=renewed
        )
        if not result.endpoints:
            return result

        async def check(candidate: Candidate) -> None:
            verdict = await gate.verify(candidate)
            self._admission.take(candidate, verdict, now())

        await run_in_parallel(
            [partial(check, each) for each in candidates],
            late=lambda: late(self._admitted(result)),
        )
        return self._admitted(result)

    def _admitted(self, result: Resolution) -> Resolution:
        return dataclasses.replace(
            result,
            endpoints=self._admission.admitted(result.endpoints),
            refused=self._admission.refused(),
            waiting=self._admission.waiting(),
        )
