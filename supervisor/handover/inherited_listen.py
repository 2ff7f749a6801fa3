"""Listen addresses of an image that takes over from another one."""

from __future__ import annotations

import dataclasses

from gateway.core.address import Address, parse_listen
from gateway.core.log import Log
from supervisor.core.config import Config
from supervisor.core.handover_state import HandoverState
from supervisor.discovery.listen_addresses import UnresolvedListenError, resolve_listen
from supervisor.discovery.targets import BadTargetError


async def find_listen_after_restart(
    config: Config, state: HandoverState, log: Log
) -> tuple[Address, ...]:
    """Those that the configuration means now; while DNS does not answer, those that are bound.

    ``state.listen`` are those, of the same configuration. Raises BadTargetError.
    """
    try:
        return await resolve_listen(config.listen_addr, config.nameserver, log=log)
    except UnresolvedListenError as error:
        log.warn("listen address does not resolve, the one before is used", error=str(error))
        return await find_listen(config, state)


async def find_listen(config: Config, state: HandoverState) -> tuple[Address, ...]:
    """The listen addresses as literals. Raises BadTargetError.

    What is bound has no options: those of a UNIX socket are taken from the configuration.
    Where the configuration has not changed they are those that are bound, whatever the names mean
    to DNS just now. Workers of the former image hold a changed one's addresses until they have
    drained, so none of them may be among the new ones.
    """
    if tuple(map(str, config.listen_addr)) == state.listen_given and state.listen:
        given = {str(each): each for each in config.listen_addr}
        return tuple(given.get(each) or parse_listen(each) for each in state.listen)
    try:
        found = await resolve_listen(config.listen_addr, config.nameserver)
    except UnresolvedListenError as error:
        raise BadTargetError(str(error)) from None
    before, after = set(state.listen), set(map(str, found))
    if before != after and before & after:
        both = ", ".join(sorted(before & after))
        raise BadTargetError(f"--listen-addr: {both} is in use by the workers before; restart")
    return found


def keep_listen(config: Config, state: HandoverState) -> Config:
    """The configuration with the listen addresses that the image before had been given.

    For an image that goes on with its own workers: they hold what is bound.
    """
    return dataclasses.replace(
        config,
        listen_addr=tuple(map(parse_listen, state.listen_given)),
        effective=tuple(
            dataclasses.replace(each, value=",".join(state.listen_given))
            if each.flag == "listen-addr"
            else each
            for each in config.effective
        ),
    )
