"""Listen addresses as literal IP addresses, whatever names they were given by.

A name is stricter than a literal in one way and laxer in another. It must resolve, and a failure
of DNS that may pass is waited for. But a name may have addresses that this host does not have (the
hosts file of a container without IPv6 still says ``::1 localhost``): these are left out while
another address of the name can be bound. A literal that cannot be bound ends the start.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Iterable, Sequence

from gateway.core.address import Address, HostPort, literal_ip
from gateway.core.log import Log
from gateway.core.messages import MAX_LISTEN
from gateway.core.unix_address import UnixAddress
from supervisor.core.backoff import Draw, delay_s
from supervisor.core.discovery.questions import Answer, Negative
from supervisor.core.discovery.system_names import Files
from supervisor.core.discovery.targets import host_question
from supervisor.discovery.targets import BadTargetError

FIRST_RETRY_S, MOST_RETRY_S = 0.5, 30.0

NOT_OF_THIS_HOST = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""What bind(2) and socket(2) say of an address that no interface has."""


class UnresolvedListenError(Exception):
    """A listen name did not resolve, for a reason that may pass; the text says which and why."""


async def wait_for_listen(
    listen: tuple[Address, ...], nameservers: Sequence[HostPort], log: Log, *, draw: Draw
) -> tuple[Address, ...]:
    """Like :func:`resolve_listen`, but tries again for as long as a failure may pass."""
    failures = 0
    while True:
        try:
            return await resolve_listen(listen, nameservers, log=log)
        except UnresolvedListenError as error:
            failures += 1
            log.warn("listen address does not resolve yet, trying again", error=str(error))
        await asyncio.sleep(
            delay_s(failures, first_s=FIRST_RETRY_S, most_s=MOST_RETRY_S, draw=draw)
        )


async def resolve_listen(
    listen: tuple[Address, ...],
    nameservers: Sequence[HostPort] = (),
    *,
    files: Files | None = None,
    log: Log | None = None,
) -> tuple[Address, ...]:
    """Listen addresses as literals, one attempt; an empty host (all interfaces) stays empty.

    UNIX addresses stay as they are.
    Raises UnresolvedListenError, and BadTargetError for a name that does not exist.
    """
    resolved: dict[Address, None] = {}
    for each in listen:
        if isinstance(each, UnixAddress):
            resolved[each] = None
            continue
        address = literal_ip(each.host)
        if address or not each.host:
            resolved[HostPort(address or "", each.port)] = None
            continue
        addresses = await _look_up(each, nameservers, files)
        for found in _bindable(each, addresses, log):
            resolved[HostPort(found, each.port)] = None
    if len(resolved) > MAX_LISTEN:
        raise BadTargetError(
            f"--listen-addr: {len(resolved)} addresses, expected at most {MAX_LISTEN}"
        )
    return tuple(resolved)


async def _look_up(
    listen: HostPort, nameservers: Sequence[HostPort], files: Files | None
) -> tuple[str, ...]:
    from supervisor.discovery.resolver import Resolver  # 40 ms to import: not for literal addresses

    match await Resolver(nameservers, files=files).ask(host_question(listen)):
        case Answer(addresses=addresses):
            return addresses
        case Negative(error=error):
            raise BadTargetError(f"--listen-addr {listen}: cannot resolve the host: {error}")
        case failure:
            raise UnresolvedListenError(
                f"--listen-addr {listen}: cannot resolve the host: {failure.error}"
            )


def _bindable(listen: HostPort, addresses: Iterable[str], log: Log | None) -> list[str]:
    """The addresses that this host has; all of them if it has none, so that the bind says why."""
    missing = {address: why for address in addresses if (why := _why_missing(address))}
    present = [address for address in addresses if address not in missing]
    if not present:
        return list(addresses)
    for address, why in missing.items():
        if log is not None:
            log.warn("listen address left out", listen=str(listen), address=address, error=why)
    return present


def _why_missing(address: str) -> str:
    """Why no program of this host can listen on the address; "" if one can."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.bind((address, 0))
    except OSError as error:
        if error.errno in NOT_OF_THIS_HOST:
            return os.strerror(error.errno)
    return ""
