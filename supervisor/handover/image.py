"""Images of the program: how this one was started, and whether an earlier one is still there."""

from __future__ import annotations

import os
import sys

from supervisor.core.handover_state import Image

_MODULES = ("etcd_gateway", "supervisor", "supervisor.master", "gateway.worker")
"""Their files tell two releases apart: an installer writes every file of a package anew."""


def command() -> tuple[str, ...]:
    """The command line that started this process, to execute again.

    A script that was executed itself is executed again, so that a new one may name another
    interpreter; ``python -m`` and the like are repeated as they were.
    """
    script = sys.orig_argv[1] if len(sys.orig_argv) > 1 else ""
    if os.path.sep in script and os.access(script, os.X_OK) and not _has_another_python(script):
        return tuple(sys.orig_argv[1:])
    return (sys.executable, *sys.orig_argv[1:])


def _has_another_python(script: str) -> bool:
    """Whether it runs by another Python than the first one in PATH, which it would run by itself.

    So does the one file on a host whose ``python3`` is too old: ``python3.12 FILE start``.
    """
    try:
        with open(script, "rb") as file:
            words = os.fsdecode(file.readline(256)).split()
    except OSError:
        return False
    by_path = len(words) == 2 and words[0].startswith("#!") and words[0].endswith("/env")
    return by_path and words[1] != sys.orig_argv[0]


def describe() -> Image:
    """This image, to come back to it; to be called at the start, before anything is replaced.

    Links are followed, so that it is found under its own path when ``current`` names another
    release. The interpreter's folder is: the link to the interpreter itself makes the environment.
    """
    folder, name = os.path.split(sys.executable)
    arguments = list(sys.orig_argv[1:])
    if arguments and os.path.sep in arguments[0]:
        arguments[0] = os.path.realpath(arguments[0])
    files = {}
    for module in _MODULES:
        path = getattr(sys.modules.get(module), "__file__", None)
        if path is not None:
            path = os.path.realpath(path)
            files[path] = _fingerprint(path)
    return Image(argv=(os.path.join(os.path.realpath(folder), name), *arguments), files=files)


def is_there(image: Image) -> bool:
    """Whether its interpreter and its code are what they were."""
    return os.access(image.argv[0], os.X_OK) and all(
        _fingerprint(path) == fingerprint for path, fingerprint in image.files.items()
    )


def _fingerprint(path: str) -> str:
    """Changes whenever the file is written or replaced; empty if it is not there."""
    try:
        found = os.stat(path)
    except OSError:
        return ""
    return f"{found.st_dev}:{found.st_ino}:{found.st_size}:{found.st_mtime_ns}"
