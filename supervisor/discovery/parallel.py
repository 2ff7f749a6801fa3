"""Jobs side by side: not too many at once, and with a say when they take long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

EARLY_S = 0.5
"""Endpoints that may be used are published after this time at the latest, though other names are
still being looked up, or the TLS of other endpoints is still being checked."""

MAX_JOBS = 64
"""Under way at once. A dead nameserver costs each question its time, but starting the questions of
thousands of targets together stops the loop for half a second."""


async def run_in_parallel(
    jobs: Sequence[Callable[[], Coroutine[Any, Any, None]]],
    *,
    late: Callable[[], None] | None,
) -> None:
    """Run the jobs, MAX_JOBS at once; call ``late`` if they take longer than EARLY_S.

    The first job that raises ends the others, and its exception is raised in an ExceptionGroup.
    """
    waiting = iter(jobs)

    async def work() -> None:
        for job in waiting:
            await job()

    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(work(), name=f"discovery {number}")
            for number in range(min(len(jobs), MAX_JOBS))
        ]
        if tasks and late is not None and (await asyncio.wait(tasks, timeout=EARLY_S))[1]:
            late()
