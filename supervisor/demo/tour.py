"""The tour of the demo: three things shown on the running gateway, and whether they held."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable

from gateway.core.records import dataclass

_SESSIONS = 30
_FOLLOW_LIMIT_S = 15.0
_POLL_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Tour:
    """What the tour needs of the stage.

    ``ask``: one session through the gateway; the name of the backend, or None if nobody answered.
    ``promote``: puts the standby into the first priority class, in DNS; the changed lines.
    ``kill``: ends a backend by name as a crash would; its pid. ``say`` prints a line.
    """

    ask: Callable[[], Awaitable[str | None]]
    promote: Callable[[], str]
    kill: Callable[[str], Awaitable[int]]
    say: Callable[[str], None]
    preferred: tuple[str, ...]
    standby: str
    victim: str

    async def guide(self) -> bool:
        """Show everything; whether all of it held."""
        held = await self._show_shares()
        held &= await self._show_record_change()
        held &= await self._show_crash()
        return held

    async def _show_shares(self) -> bool:
        answers = await self._ask_often()
        held = set(answers) == set(self.preferred)
        self._tell(f"1. {_SESSIONS} sessions, shared by priority and weight", answers, held)
        return held

    async def _show_record_change(self) -> bool:
        began_at = time.monotonic()
        self.say(f"2. DNS changes, nobody tells the gateway: {self.promote()}")
        while await self.ask() != self.standby:
            if time.monotonic() - began_at > _FOLLOW_LIMIT_S:
                self._tell("   not followed", Counter(), False)
                return False
            await asyncio.sleep(_POLL_S)
        took_s = time.monotonic() - began_at
        answers = await self._ask_often()
        held = None not in answers and self.standby in answers
        self._tell(f"   followed after {took_s:.1f} s", answers, held)
        return held

    async def _show_crash(self) -> bool:
        self.say(f"3. {self.victim} crashes")
        pid = await self.kill(self.victim)
        answers = await self._ask_often()
        held = None not in answers and self.victim not in answers
        self._tell(f"   after kill -9 {pid}, {_SESSIONS} more sessions", answers, held)
        return held

    async def _ask_often(self) -> Counter[str | None]:
        return Counter([await self.ask() for _ in range(_SESSIONS)])

    def _tell(self, what: str, answers: Counter[str | None], held: bool) -> None:
        shares = ", ".join(
            f"{name or 'NOBODY'} {count}"
            for name, count in sorted(answers.items(), key=lambda item: item[0] or "")
        )
        verdict = "" if held else "   <- NOT AS EXPECTED"
        self.say(f"{what}: {shares}{verdict}" if shares else f"{what}{verdict}")
