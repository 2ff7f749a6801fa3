"""Trying one-shot steps again that failed because the host was short of something for a moment.

Some steps happen once in the life of a master: opening the admin address, telling the service
manager about readiness. Without another try, a moment without free descriptors would cost the
admin address for good, or a start that systemd then takes for hung.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from gateway.core.log import Log
from supervisor.core.backoff import doubled_s

FIRST_RETRY_S, MOST_RETRY_S = 0.1, 5.0


async def try_until_done(step: Callable[[], Awaitable[None]], log: Log, *, msg: str) -> None:
    """Await ``step()`` again and again until it raises nothing; log each new reason as ``msg``.

    Every exception counts, because a lack of descriptors has many faces: an import in which a
    library cannot open its own file fails with ImportError.
    """
    failures, told = 0, ""
    while True:
        try:
            await step()
        except Exception as error:  # noqa: BLE001 - the boundary: the step is tried again
            failures += 1
            if (why := f"{type(error).__name__}: {error}") != told:
                told = why
                log.error(msg, error=why)
        else:
            return
        await asyncio.sleep(doubled_s(failures, first_s=FIRST_RETRY_S, most_s=MOST_RETRY_S))
