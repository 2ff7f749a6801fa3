"""The outermost function of the command: every failure becomes one line and an exit code.

The other modules are imported inside of it, so that a failing import is reported the same way.
"""

from __future__ import annotations

import errno
import io
import itertools
import os
import sys
from collections.abc import Sequence

from supervisor.cli.console import COMPLETE_VARIABLE, report
from supervisor.core.exit_codes import EXIT_FAILURE, EXIT_INTERRUPTED

NO_PLACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""What only a write fails with. No command writes to a file but to what it was given as output."""

NO_LOOP = ("fs.epoll.max_user_watches", "AF_UNIX")
"""What an event loop that cannot be made says in the place of a file, as in ``system.tasks``."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code.

    Raises nothing but SystemExit, and an OSError for want of descriptors or memory: there may
    be none to import anything with, and ``launch`` has the words for it.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    _open_missing_streams()
    _write_any_character()
    try:
        code = _run(arguments)
        sys.stdout.flush()
        return code
    except SystemExit:
        raise
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output is gone; keep the interpreter from writing to it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return EXIT_FAILURE
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
            raise
        if error.filename in NO_LOOP:
            raise
        if error.errno in NO_PLACE and error.filename is None:
            return _fail(f"the output could not be written: {error.strerror}", error, arguments)
        return _fail_unexpectedly(error, arguments)
    except Exception as error:  # noqa: BLE001 - the outermost boundary: no traceback for users
        return _fail_unexpectedly(error, arguments)


def _run(arguments: Sequence[str]) -> int:
    from supervisor.cli import start

    completing = COMPLETE_VARIABLE in os.environ
    if not completing and (flags := start.read_plainly(arguments)) is not None:
        return start.run(flags)
    from supervisor.cli import commands

    return commands.run(arguments)


def _open_missing_streams() -> None:
    """Open closed streams on nothing: else a client's socket would get one of their numbers."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - lives as long as we do
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


def _write_any_character() -> None:
    """Write what a terminal's encoding lacks as an escape: names come from elsewhere, and a table
    with one of them is worth more than an error. Standard error does so from the start."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _fail_unexpectedly(error: Exception, arguments: Sequence[str]) -> int:
    reason = str(error) or "no further reason"
    if isinstance(error, ImportError):  # a damaged file, or a native library of another host
        return _fail(f"cannot be imported: {reason}; install etcd-gateway again", error, arguments)
    return _fail(f"unexpected {type(error).__name__}: {reason}", error, arguments)


def _fail(text: str, error: Exception, arguments: Sequence[str]) -> int:
    report(text)
    if "debug" in (os.environ.get("GATEWAY_LOG_LEVEL"), *_levels(arguments)):
        import traceback

        traceback.print_exception(error)
    return EXIT_FAILURE


def _levels(arguments: Sequence[str]) -> list[str]:
    """The log levels that the command line names, in either spelling."""
    pairs = itertools.pairwise(arguments)
    return [level for name, level in pairs if name == "--log-level"] + [
        each.partition("=")[2] for each in arguments if each.startswith("--log-level=")
    ]
