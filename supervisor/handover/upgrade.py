"""USR2: the master executes the program anew, in place; the pid and the sockets stay.

An upgrade is a transaction. First a child tries everything that a start does (``preflight``), and
the old image serves on if anything is wrong. Then the master executes the new image, which gets
the handover state. Until the new image's workers are ready, it can go back to the old one.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from typing import NoReturn

from gateway.core.log import Log
from supervisor.core.handover_state import HandoverState
from supervisor.core.next_master import going_back
from supervisor.handover.image import is_there
from supervisor.handover.inheritance import Inheritance, find_files
from supervisor.handover.preflight import Preflight
from supervisor.handover.state import HANDOVER_VARIABLE, write_state
from supervisor.system import signals

FAILED = "upgrade failed, the old image goes on"

OLD_WORKERS_GO_ON = "upgrade failed, the old workers go on"

NOT_NOW = "no upgrade now"

STARTING = "starting"
"""The one obstacle that passes."""


class Upgrade:
    """One upgrade at a time, and none is forgotten that was asked for meanwhile.

    Whoever asks may have put another program there since the last trial began.
    ``obstacle()`` says why there can be none at the moment, "" if nothing is in the way.
    ``hand_over()`` gives what the next image gets, as it is now; descriptors stay the master's.
    ``pause()`` ends what cannot be handed over half done, ``resume()`` begins it again if the
    upgrade comes to nothing. ``resume_signals()`` undoes ``signals.hold_all()``.
    """

    def __init__(
        self,
        log: Log,
        *,
        obstacle: Callable[[], str],
        hand_over: Callable[[], HandoverState],
        pause: Callable[[], Awaitable[None]],
        resume: Callable[[], Awaitable[None]],
        resume_signals: Callable[[], None],
    ) -> None:
        self._log = log
        self._obstacle = obstacle
        self._hand_over = hand_over
        self._pause = pause
        self._resume = resume
        self._resume_signals = resume_signals
        self._under_way = False
        self._asked = False
        """Whether somebody asked during a start, or since the last trial began."""
        self._preflight = Preflight()

    def owns(self, pid: int) -> bool:
        """Whether the process is the child that tries the new image."""
        return self._preflight.owns(pid)

    async def attempt(self) -> None:
        """Become a new image of the program; returns only if that is not to be, or not now."""
        if self._under_way:
            self._put_off("one is on", "the program is tried once more")
        elif (reason := self._obstacle()) == STARTING:
            self._put_off(reason, "when the start is over")
        elif reason:
            self._log.warn(NOT_NOW, reason=reason)
        else:
            self._asked = True
            await self.catch_up()

    async def catch_up(self) -> None:
        """Attempt what was asked for while nothing could be attempted."""
        while self._asked and not self._under_way and not self._obstacle():
            self._asked = False
            await self._attempt_once()

    def _put_off(self, reason: str, until: str) -> None:
        self._asked = True
        self._log.warn(NOT_NOW, reason=reason, follows=until)

    async def _attempt_once(self) -> None:
        self._under_way = True
        try:
            if why := await self._try():
                self._log.error(FAILED, error=why)
                return
            if not await self._halt():
                return
            self._log.info("upgrading")
            state = self._hand_over()
            execute(state.command, state)
        except OSError as error:
            self._log.error(FAILED, error=str(error))
        finally:
            await self._go_on()

    async def _try(self) -> str | None:
        """Why the new image would not start, None if it would.

        It is tried once more if somebody asked meanwhile, but no more than once: whoever asks every
        second, until the version is a new one, is to get it.
        """
        why = await self._preflight.run(self._hand_over())
        if why is None and self._asked:
            self._asked = False
            why = await self._preflight.run(self._hand_over())
        return why

    async def go_back(self, left: Inheritance, reason: str) -> None:
        """Become the image again that handed over to this one.

        Returns if that image is not there any more, or is this very one.
        """
        before = left.state.image
        if before is None or not is_there(before):
            return
        if self._under_way or self._hand_over().image == before:
            return
        self._under_way = True
        try:
            if not await self._halt():
                return
            if self._asked:
                os.kill(os.getpid(), signal.SIGUSR2)  # held: that image hears of it
            now = self._hand_over()
            files = find_files(now.descriptors)
            state = going_back(now, left.state, reason, files=files, files_before=left.files)
            execute(before.argv, state)
        except OSError as error:
            self._log.error("cannot go back to the old image", error=str(error))
        finally:
            await self._go_on()

    async def _go_on(self) -> None:
        """There is no other image."""
        self._under_way = False
        self._resume_signals()
        await self._resume()

    async def _halt(self) -> bool:
        """Bring everything to a halt for ``execve``; False if there is no upgrade after all.

        That takes seconds where a probe is under way, and a stop that comes meanwhile is heard.
        """
        await self._pause()
        signals.hold_all()
        for _ in range(3):  # one that came before is ours, and the loop has yet to hear of it
            await asyncio.sleep(0)
        if reason := self._obstacle():
            self._log.warn(NOT_NOW, reason=reason)
        return not reason


def execute(argv: Sequence[str], state: HandoverState) -> NoReturn:
    """Become another image. OSError: this one goes on, and no descriptor has changed.

    Call :func:`signals.hold_all` first: a signal that arrives before the new image has installed
    its handlers would kill it.
    """
    document = write_state(state)
    passed = [document, *state.descriptors.values()]
    try:
        for fd in passed:
            os.set_inheritable(fd, True)
        os.execve(argv[0], list(argv), {**os.environ, HANDOVER_VARIABLE: str(document)})  # noqa: S606 - ourselves
    finally:
        for fd in passed:
            os.set_inheritable(fd, False)
        os.close(document)
