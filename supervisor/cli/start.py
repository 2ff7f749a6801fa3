"""``start``: runs the gateway in the foreground until a signal stops it.

Units and scripts write flags as ``--name=value``. Such a command line is read here: click takes
40 ms of CPU to import, and its memory would be the master's for good.
"""

from __future__ import annotations

import functools
import gc
from collections.abc import Mapping, Sequence

from supervisor.cli import settings
from supervisor.cli.console import report
from supervisor.core.config_error import ConfigError
from supervisor.core.exit_codes import EXIT_USAGE
from supervisor.core.flags import BY_NAME, FlagKind


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


def run(flags: Mapping[str, Sequence[str]]) -> int:
    """Run the gateway; its exit code, or that of wrong usage, of which one line is reported."""
    load = functools.partial(settings.load, flags)
    try:
        config = load()
    except ConfigError as error:
        report(str(error))
        return EXIT_USAGE
    from supervisor import master

    gc.freeze()  # what was imported is for good: no collection looks at it
    gc.enable()
    return master.run(config, load)
