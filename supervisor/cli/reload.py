"""The command ``reload``: sends SIGHUP to the running master and waits until its reload ended."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway.process_title import MASTER
from supervisor.cli.admin_client import (
    UnreachableError,
    fetch_status,
    find_listener,
    is_of_this_host,
)
from supervisor.cli.console import report
from supervisor.core.exit_codes import EXIT_FAILURE
from supervisor.system.machine import pid_namespace

WAIT_S = 90.0
"""A reload resolves every name again; dead nameservers make that slow."""

POLL_S = 0.05

MASTER_TITLE = MASTER.encode()

PROGRAMS = (b"etcd-gateway", b"etcd_gateway")
"""How the command line of a master names it that is just executing its next image."""

UPGRADE_S = 15.0
"""How long that may take, on a busy host. Somebody answers at the admin address meanwhile."""


def run(admin_addrs: Sequence[str]) -> int:
    """Exit code 0 if the reload worked, 1 if it failed or no gateway was found."""
    try:
        before = fetch_status(admin_addrs)
    except UnreachableError as error:
        return _fail(str(error))
    if before["state"] == "draining":
        return _fail("the gateway is draining and reloads no more")
    pid = before["pid"]
    if _is_in_another_container(before):
        return _fail(
            f"the gateway says it is process {pid} of another container; "
            "run reload where the gateway runs"
        )
    if not await_master(pid, UPGRADE_S) and (why := _why_no_master(pid, admin_addrs)):
        return _fail(why)
    if _is_another(pid, before, admin_addrs):
        return _fail(
            f"the gateway runs on {before['host']}, and process {pid} here is another one; "
            "run reload where the gateway runs"
        )
    try:
        os.kill(pid, signal.SIGHUP)
    except OSError as error:
        return _fail(f"cannot signal process {pid}: {error.strerror}")
    return _await(admin_addrs, before)


def _is_in_another_container(document: Mapping[str, Any]) -> bool:
    """Whether its process id counts in another namespace than ours.

    Containers may share addresses and the host's name, as those of a pod do, or a socket's folder.
    """
    theirs, ours = document.get("pid_namespace"), pid_namespace()
    return None not in (theirs, ours) and theirs != ours


def _why_no_master(pid: int, admin_addrs: Sequence[str]) -> str:
    """Why a process that does not look like a master may not be signalled; "" if it may be.

    ``/proc`` may hide it from us although we are of its user: ProtectProc=invisible hides whom we
    may not trace, and PrivateUsers= has a user namespace for each command of a unit. Then it is the
    master if it listens at the admin address.
    """
    hidden = not os.path.exists(f"/proc/{pid}") and _may_be_signalled(pid)
    if not hidden:
        return (
            f"the gateway says it is process {pid}, which is no etcd-gateway master here; "
            "run reload where the gateway runs"
        )
    if any(find_listener(address) == pid for address in admin_addrs):
        return ""
    return (
        f"the gateway says it is process {pid}, which is hidden from this command (hidepid=, "
        "ProtectProc=); expected a UNIX socket in --admin-addr, which would tell whose it is"
    )


def _may_be_signalled(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # 0: only look, kill(2)
    except OSError:
        return False
    return True


def _is_another(pid: int, document: Mapping[str, Any], admin_addrs: Sequence[str]) -> bool:
    """Whether a gateway on another host answered, and this host has one with the same pid.

    In containers, mostly, each is process 1. Of a process that has another name for this host we
    cannot tell.
    """
    host = document.get("host")
    if not host or host == socket.gethostname() or any(map(is_of_this_host, admin_addrs)):
        return False
    try:
        return os.path.samefile(f"/proc/{pid}/ns/uts", "/proc/self/ns/uts")
    except OSError:
        return False


def _await(admin_addrs: Sequence[str], before: Mapping[str, Any]) -> int:
    """Wait for a reload that read the configuration as it was when this command began."""
    give_up_at = time.monotonic() + WAIT_S
    document = before
    while time.monotonic() < give_up_at:
        try:
            document = fetch_status(admin_addrs)
        except UnreachableError as error:
            return _fail(f"the gateway went away during the reload: {error}")
        if (document["pid"], document["started_at"]) != (before["pid"], before["started_at"]):
            return _fail("the gateway was restarted during the reload")
        reload = document["reload"]
        if has_ended(reload, before["reload"]):
            if reload["last_result"] == "complete":
                sys.stdout.write("reload complete\n")
                _warn(reload.get("needs_restart") or ())
                return 0
            return _fail(f"reload failed: {reload['last_error'] or 'see the log'}")
        if document["state"] == "draining":
            return _fail("the gateway began to drain and did not reload")
        time.sleep(POLL_S)
    if document["state"] == "starting":
        return _fail(
            f"the gateway is still starting after {WAIT_S:g} s, and reloads when that is over; "
            "see the log"
        )
    return _fail(f"the reload is not over after {WAIT_S:g} s; see the log")


def has_ended(reload: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """Whether our reload is over, by what the status document says of reloads now and ``before``.

    A reload that was under way before had read the configuration earlier, so the result of the
    next one counts. Releases that number none go on running where the package was replaced.
    """
    if "number" not in before or "number" not in reload:
        return bool(reload["last_at"] != before["last_at"])
    return bool(reload["number"] > before["number"] + before["under_way"])


def await_master(pid: int, deadline_s: float) -> bool:
    """Whether ``pid`` is a master on this host: a signal to another program could end that.

    During an upgrade it has the title of a master as soon as its next image has begun.
    """
    give_up_at = time.monotonic() + deadline_s
    while True:
        try:
            shown = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return False
        if shown.startswith(MASTER_TITLE):
            return True
        # Nothing is shown for a moment while a program is executed.
        begins = not shown or any(name in shown for name in PROGRAMS)
        if not begins or time.monotonic() >= give_up_at:
            return False
        time.sleep(POLL_S)


def _warn(in_vain: Sequence[str]) -> None:
    """Say which changes are not in use; a gateway before this release says so in its log alone."""
    if in_vain:
        flags = ", ".join(in_vain)
        report(f"warning: changed in the configuration, used after a restart: {flags}")


def _fail(text: str) -> int:
    report(text)
    return EXIT_FAILURE
