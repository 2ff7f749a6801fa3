"""Where the running gateway answers, for the commands that ask it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence

from supervisor.cli import settings
from supervisor.cli.console import report, warn_of_misspelled
from supervisor.core.config import Config
from supervisor.core.config_error import ConfigError
from supervisor.core.flags import BY_NAME

UNIT_SOCKET = "/run/etcd-gateway/admin.sock"
"""The admin address of the shipped systemd unit."""

FINDING_FLAGS = {
    "admin-addr": "Ask the gateway that serves one of these; without it, and without "
    f"{BY_NAME['admin-addr'].variable} and admin-addr in the config file, {UNIT_SOCKET} is tried.",
    "config-file": "The config file of the gateway; its admin-addr is asked.",
}
"""What ``status``, ``sessions`` and ``reload`` find the running gateway by, and their help."""


def find_admin(flags: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Where the running gateway answers: as configured, else where the shipped unit has it.

    The config file is read only where it has a say: it may be one that not everybody may read.
    """
    config, problem = _read_finding(flags)
    warn_of_misspelled(config.misspelled)
    found = config.admin_addr
    if not found and "admin-addr" not in flags and _may_be_there(UNIT_SOCKET):
        found = (f"unix:{UNIT_SOCKET}",)
    if not found and problem is not None:
        raise problem
    if not found:
        raise ConfigError(
            f"--admin-addr is not set and there is no {UNIT_SOCKET}",
            None,
            "expected the address at which the gateway serves its status "
            f"(or {BY_NAME['admin-addr'].variable}, or admin-addr in the config file)",
        )
    if problem is not None:
        report(f"warning: {problem}; asking at {', '.join(found)}")
    return found


def _read_finding(flags: Mapping[str, Sequence[str]]) -> tuple[Config, ConfigError | None]:
    """What says where the gateway answers, and what is wrong with the config file; None if nothing.

    The default of its unit or image comes after what the file says: a gateway that was started
    before the file said so is still there.
    A gateway whose file was broken after its start goes on, and its operator wants to see it. But
    whoever names a file means that file: where it cannot be read, its error is raised.
    """
    without_file = settings.load(flags, only=("admin-addr",))
    if flags.get("admin-addr") or os.environ.get(BY_NAME["admin-addr"].variable):
        return without_file, None
    try:
        return _with_default(settings.load(flags, only=FINDING_FLAGS), without_file), None
    except ConfigError as error:
        problem = error
    try:
        read = settings.load(flags, only=FINDING_FLAGS, strict=False)
        return _with_default(read, without_file), problem
    except ConfigError:
        if flags.get("config-file"):
            raise
        return without_file, problem


def _with_default(config: Config, default: Config) -> Config:
    addresses = dict.fromkeys((*config.admin_addr, *default.admin_addr))
    return dataclasses.replace(config, admin_addr=tuple(addresses))


def _may_be_there(path: str) -> bool:
    """Whether the file is there; also if only others may know, whose refusal then is the answer."""
    try:
        os.stat(path)
    except PermissionError:
        return True
    except OSError:
        return False
    return True
