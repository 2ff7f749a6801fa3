"""USR2: the master executes the program anew, in place; the pid and the sockets stay.

A child tries the new image first, so one that does not start leaves the old one serving.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, NoReturn

from gateway.core.log import Log
from supervisor.system import signals
from supervisor.workers.fork import SYSTEMD_VARIABLES
from supervisor.workers.inherited import InheritedDescriptors

FAILED = "upgrade failed, the old image goes on"

HANDOVER_VARIABLE = "ETCD_GATEWAY_HANDOVER"
"""A descriptor; in it JSON: ``fds`` (name to descriptor) and ``facts`` for the next image."""
PREFLIGHT_VARIABLE = "ETCD_GATEWAY_PREFLIGHT"
"""Set: import everything, build the configuration, and exit 0 without starting anything."""
PREFLIGHT_S = 15.0

HandoverState = tuple[Mapping[str, int], Mapping[str, Any]]
"""Descriptors by name, and facts."""


class Upgrade:
    """One upgrade at a time.

    ``obstacle()`` says why there can be none at the moment, "" if nothing is in the way.
    ``hand_over()`` gives what the next image gets, at the last moment; descriptors stay its own.
    ``pause()`` ends what cannot be handed over half done, ``resume()`` begins it again if the
    upgrade comes to nothing.
    """

    def __init__(
        self,
        log: Log,
        *,
        obstacle: Callable[[], str],
        hand_over: Callable[[], HandoverState],
        resume_signals: Callable[[], None],
        pause: Callable[[], Awaitable[None]],
        resume: Callable[[], Awaitable[None]],
    ) -> None:
        self._log = log
        self._obstacle = obstacle
        self._hand_over = hand_over
        self._resume_signals = resume_signals
        self._pause = pause
        self._resume = resume
        self._under_way = False

    async def attempt(self) -> None:
        """Become a new image of the program; returns only if that is not to be."""
        if reason := "one is on" if self._under_way else self._obstacle():
            self._log.warn("no upgrade now", reason=reason)
            return
        self._under_way = True
        try:
            if why := await preflight():
                self._log.error(FAILED, error=why)
                return
            await self._pause()
            signals.hold_all()
            for _ in range(3):  # one that came before is ours, and the loop has yet to hear of it
                await asyncio.sleep(0)
            if not self._obstacle():
                self._log.info("upgrading")
                execute(*self._hand_over())
        except OSError as error:
            self._log.error(FAILED, error=str(error))
        finally:
            self._under_way = False
            self._resume_signals()
            await self._resume()


def command() -> list[str]:
    """The command line that started this process, to execute again.

    A script that was executed itself is executed again, so that a new one may name another
    interpreter; ``python -m`` and the like are repeated as they were.
    """
    script = sys.orig_argv[1] if len(sys.orig_argv) > 1 else ""
    if os.path.sep in script and os.access(script, os.X_OK):
        return sys.orig_argv[1:]
    return [sys.executable, *sys.orig_argv[1:]]


async def preflight(deadline_s: float = PREFLIGHT_S) -> str | None:
    """Start the new image in a child that only tries; None if it would work, else why not."""
    argv = command()
    try:
        pidfd = _spawn_preflight(argv)
    except OSError as error:
        return f"{argv[0]}: {error.strerror}"
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()
    loop.add_reader(pidfd, _settle, over)
    why = None
    try:
        await asyncio.wait_for(over, deadline_s)
    except TimeoutError:
        why = f"not done within {deadline_s:g} s"
    finally:
        loop.remove_reader(pidfd)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)  # one that exited does not mind
        ended = _wait(pidfd)
    return why or ended


def _spawn_preflight(argv: list[str]) -> int:
    """The pidfd of a child that runs the new image."""
    environ = {**os.environ, PREFLIGHT_VARIABLE: "1"}
    for name in SYSTEMD_VARIABLES:
        environ.pop(name, None)
    return os.pidfd_open(os.posix_spawn(argv[0], argv, environ, setsigmask=signals.HANDLED))


def _wait(pidfd: int) -> str | None:
    status = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    os.close(pidfd)
    if status is None or (status.si_code, status.si_status) != (os.CLD_EXITED, 0):
        return f"exit status {status.si_status if status else '?'}"
    return None


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def is_preflight(environ: Mapping[str, str]) -> bool:
    """Whether this process only tries whether the program would start."""
    return bool(environ.get(PREFLIGHT_VARIABLE))


def execute(fds: Mapping[str, int], facts: Mapping[str, Any]) -> NoReturn:
    """Become the new image; OSError: we are still the old one and nothing has changed.

    Call :func:`signals.hold_all` first: a signal that arrives before the new image has installed
    its handlers would kill it.
    """
    document = _write_down({"fds": dict(fds), "facts": dict(facts)})
    argv = command()
    for fd in fds.values():
        os.set_inheritable(fd, True)
    try:
        os.execve(argv[0], argv, {**os.environ, HANDOVER_VARIABLE: str(document)})  # noqa: S606 - ourselves
    finally:
        for fd in fds.values():
            os.set_inheritable(fd, False)
        os.close(document)


def _write_down(left: Mapping[str, Any]) -> int:
    """A descriptor that outlives ``execve``; a variable itself holds 128 KiB at most (execve(2)),
    which the facts about 200 endpoints fill."""
    document = os.memfd_create("inherited", 0)
    with open(document, "w", encoding="utf-8", closefd=False) as file:
        json.dump(left, file, default=str)
    os.lseek(document, 0, os.SEEK_SET)
    return document


def take_inherited(
    environ: MutableMapping[str, str],
) -> tuple[InheritedDescriptors, dict[str, Any]] | None:
    """What the image before us left; None if we are the first. The caller owns the inherited."""
    document = environ.pop(HANDOVER_VARIABLE, "")
    if not document:
        return None
    with open(int(document), encoding="utf-8") as file:
        left = json.load(file)
    for fd in left["fds"].values():
        os.set_inheritable(fd, False)
    return InheritedDescriptors.from_names(left["fds"].items(), left["facts"]), left["facts"]
