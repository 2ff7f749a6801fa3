"""What a start does, tried in a child of the master before an upgrade: nothing is left of it.

Everything here raises, or returns the reason, as a start would. What the running gateway has
already is not tried again: its listening sockets and its admin sockets are handed on.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import select
import socket
import time
from collections.abc import Sequence

from gateway.core import messages, wire
from gateway.core.address import Address, HostPort, tcp_only
from gateway.core.unix_address import UnixAddress
from gateway.ingress.listener import bind_socket, describe_failure, open_listener
from gateway.scoreboard import Scoreboard
from gateway.worker_spec import WorkerSpec
from supervisor.admin.lifecycle import IMPORTS
from supervisor.admin.sockets import AdminError, bind_all
from supervisor.core.config import Config
from supervisor.core.discovery.resolution import Resolution
from supervisor.core.discovery.targets import describe_targets, describe_tls_check
from supervisor.core.handover_state import HandoverState
from supervisor.core.next_master import count_workers
from supervisor.core.reload_rules import worker_settings
from supervisor.core.roster import Roster
from supervisor.core.workers.descriptor_names import Kind, read_name
from supervisor.discovery.means import Means
from supervisor.discovery.targets import BadTargetError
from supervisor.discovery.tls_admission import TlsAdmission
from supervisor.handover.inherited_listen import find_listen
from supervisor.handover.state import read_state
from supervisor.system import kernel_calls, limits
from supervisor.system.connections import dial_as, find_foreign_source
from supervisor.system.log import make_log
from supervisor.system.tasks import run_in_loop
from supervisor.system.unix_listener import file_id, listen_unix, remove_file, why_not_group
from supervisor.workers.fork import Child, fork_workers

LATE_MODULES = (
    *IMPORTS,
    "supervisor.admin.server",
    "supervisor.discovery.resolver",
    "supervisor.system.http_client",
)
"""What a running gateway imports only when it is needed."""

TLS_TRIAL_S = 5.0
"""An endpoint that does not answer takes --health-timeout, and there may be thousands. What is not
decided by then is no reason against an upgrade."""

TRIAL_S = 15.0
"""A worker is ready within 0.1 s of its fork; a host that swaps takes many times that."""


class TrialError(Exception):
    """The program would not start; the text says why."""


def run(config: Config, document: int) -> None:
    """Try a start with this configuration and handover state; TrialError if it would fail."""
    state = read_state(document)
    os.close(document)
    if missing := kernel_calls.find_missing_call():
        raise TrialError(missing)
    if config.pin_workers and (why := kernel_calls.find_unpinnable()):
        raise TrialError(why)
    if foreign := find_foreign_source(config):
        raise TrialError(foreign)
    for module in LATE_MODULES:
        importlib.import_module(module)
    given = limits.given_workers(config.workers)
    workers = min(count_workers(state, given, restarted=False), messages.MAX_SLOTS)
    try:
        listen = run_in_loop(lambda: find_listen(config, state))
        _bind_new(config, state, listen)
        _bind_more(state, tcp_only(listen), workers)
        run_in_loop(lambda: _check_tls(config, state))
    except (AdminError, BadTargetError, OSError, ValueError) as error:
        raise TrialError(str(error)) from None
    open_files = limits.raise_open_files()
    if obstacle := limits.find_obstacle(open_files, workers=workers, listen=len(listen)):
        raise TrialError(obstacle)
    _try_worker(config, state)


def _bind_new(config: Config, state: HandoverState, listen: Sequence[Address]) -> None:
    """Addresses that the running gateway does not have: bind each, and close it again."""
    for address in listen:
        known = str(address) in state.held
        if isinstance(address, UnixAddress):
            if not (known and _goes_on(address, state)):
                sock, made = listen_unix(address)
                remove_file(address.path, made)
                sock.close()
        elif not known:
            open_listener(address, exclusive=True).close()
    for admin in bind_all([each for each in config.admin_addr if each not in state.admin]):
        admin.close()


def _bind_more(state: HandoverState, listen: Sequence[HostPort], workers: int) -> None:
    """Slots that the running gateway has no sockets of bind their own: can they? TrialError.

    An address may have left this host since, or the right to bind it.
    """
    read = [known for name in state.descriptors if (known := read_name(name)) is not None]
    slots = {numbers[0] for kind, numbers in read if kind is Kind.LISTENER}
    if slots.issuperset(range(workers)):
        return
    for address in listen:
        if str(address) in state.held:
            try:
                bind_socket(address, exclusive=False).close()
            except OSError as error:
                why = describe_failure(error, address.port)
                raise TrialError(f"no more workers can listen on {address}: {why}") from None


def _goes_on(address: UnixAddress, state: HandoverState) -> bool:
    """Whether clients still find the running gateway's socket there, or it is not ours to make.

    OSError: its file may not be given the group that it is to have now.
    """
    known = [each for name in state.descriptors if (each := read_name(name)) is not None]
    if address.abstract or any(kind is Kind.LENT for kind, _ in known):
        return True  # which of them the service manager made is in no name
    ours = {tuple(numbers[1:]) for kind, numbers in known if kind is Kind.SHARED}
    try:
        found = file_id(address.path)
    except OSError:
        return False
    if found not in ours:
        return False
    if why := why_not_group(address):
        raise OSError(f"cannot listen on {address}: {why}")
    return True


async def _check_tls(config: Config, state: HandoverState) -> None:
    """Where another TLS check is asked for than the endpoints have passed: do all of them fail it?

    A start would end, and a reload fails. ValueError: a file of the check cannot be used.
    """
    dial_as(config)
    admission = TlsAdmission(config, Means())
    passed = state.tls_check in (None, describe_tls_check(config))
    found = tuple(each for each in state.found if each.srv)
    if not admission.required or passed or state.member_list_of != describe_targets(config):
        return
    try:
        async with asyncio.timeout(TLS_TRIAL_S):
            result = await admission.check(
                Resolution(found), everything=True, renewed=True, late=lambda _: None
            )
    except TimeoutError:
        return
    finally:
        await admission.close()
    if result.refused and result.definite and not result.endpoints:
        raise TrialError(result.why_nothing(config))


def _try_worker(config: Config, state: HandoverState) -> None:
    """Fork a worker without listeners, give it the endpoints, and wait until it is ready."""
    roster = Roster(state.snapshot_version)
    roster.resolve(state.found, time.monotonic(), config.removal_grace_s)
    snapshot = roster.snapshot(worker_settings(config))
    scoreboard = Scoreboard()
    inbox, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with inbox, other:
        spec = WorkerSpec(
            slot=0,
            gen=1,
            slots=1,
            listen=(),
            listeners=(),
            exclusive=False,
            inbox=inbox,
            peers={},
            scoreboard=scoreboard,
            row=scoreboard.open_row(0, 1),
            cpu=None,
            title="trial",
        )
        (child,) = fork_workers([spec], make_log=lambda _: make_log("error", "json"))
    scoreboard.close()
    if isinstance(child, OSError):
        raise TrialError(f"cannot start a worker: {limits.describe_shortage(child)}")
    try:
        with contextlib.suppress(BrokenPipeError):  # it has ended; why is in the other direction
            os.write(child.pipe_w, wire.encode(snapshot))
        _wait_ready(child)
    except OSError as error:
        raise TrialError(f"a worker ended before it was ready: {error.strerror}") from None
    finally:
        child.abandon()


def _wait_ready(child: Child) -> None:
    lines = wire.LineReader()
    deadline = time.monotonic() + TRIAL_S
    while True:
        wait_s = max(deadline - time.monotonic(), 0.0)
        readable, _, _ = select.select([child.control], [], [], wait_s)
        if not readable:
            raise TrialError(f"a worker was not ready within {TRIAL_S:g} s")
        data = child.control.recv(65536)
        if not data:
            raise TrialError("a worker ended before it was ready")
        for line in lines.feed(data):
            match wire.decode(line):
                case messages.Ready():
                    return
                case messages.Failed(reason, error):
                    raise TrialError(f"a worker cannot start: {reason}: {error}")
                case _:
                    pass
