"""``start``: runs the gateway in the foreground until a signal stops it.

Units and scripts write flags as ``--name=value``. Such a command line is read here: click takes
40 ms of CPU to import, and its memory would be the master's for good.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import signal
from collections.abc import Mapping, Sequence

from supervisor.cli import settings
from supervisor.cli.console import report
from supervisor.core.config_error import ConfigError
from supervisor.core.exit_codes import EXIT_USAGE
from supervisor.core.flags import BY_NAME, FlagKind

RETRY_S = 5.0
"""After a crash, until a configuration that cannot be used is read again."""


def read_plainly(arguments: Sequence[str]) -> dict[str, tuple[str, ...]] | None:
    """The texts of each flag of ``start --name=value ...``, by the flags' names.

    None for every other command line: click reads it, or says what is wrong with it.
    """
    if not arguments or arguments[0] != "start":
        return None
    flags: dict[str, tuple[str, ...]] = {}
    for argument in arguments[1:]:
        option, equals, text = argument.partition("=")
        flag = BY_NAME.get(option[2:]) if option.startswith("--") else None
        if flag is None or not (equals or flag.kind is FlagKind.SWITCH):
            return None
        flags[flag.name] = (*flags.get(flag.name, ()), text if equals else "true")
    return flags


def _is_left_by_crash() -> bool:
    """Whether workers of a master that crashed serve. They would end with the unit, whose next
    start nobody asked for: it waits for what can be used, and an operator's start does not."""
    from supervisor.handover import inheritance

    return inheritance.is_left_by_crash(os.environ)


def _forget_crash() -> None:
    from supervisor.handover import inheritance

    with contextlib.suppress(OSError):  # without memory for it the next start waits, too
        inheritance.forget_crash(os.environ)


def _wait_for_another_try() -> bool:
    """False if a stop signal comes; HUP says that it is worth a try now."""
    from supervisor.handover.systemd import Notify
    from supervisor.system.signals import STOP

    notify = Notify(os.environ.get("NOTIFY_SOCKET"))
    notify.extend(2.0 * RETRY_S)
    notify.close()
    report(f"the workers of the master that crashed go on; trying again in {RETRY_S:g} s")
    got = signal.sigtimedwait((signal.SIGHUP, *STOP), RETRY_S)  # ``launch`` holds them
    return got is None or got.si_signo == signal.SIGHUP


def run(flags: Mapping[str, Sequence[str]]) -> int:
    """Run the gateway; its exit code, or that of wrong usage, of which one line is reported."""
    load = functools.partial(settings.load, flags)
    while True:
        try:
            config = load()
        except ConfigError as error:
            report(str(error))
            if not _is_left_by_crash():
                return EXIT_USAGE
            if not _wait_for_another_try():
                _forget_crash()
                return 0
        else:
            break
    from supervisor import master

    gc.freeze()  # what was imported is for good: no collection looks at it
    # A report of 1,000 endpoints makes 5,000 objects, and those of the one before go. With the
    # default of 700 a third of the time of taking it was spent on collections.
    gc.set_threshold(10_000, 10, 10)
    gc.enable()
    return master.run(config, load)
