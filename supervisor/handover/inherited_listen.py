"""Listen addresses of an image that takes over from another one."""

from __future__ import annotations

from gateway.core.address import HostPort, parse_listen
from supervisor.core.config import Config
from supervisor.core.handover_state import HandoverState
from supervisor.discovery.listen_addresses import UnresolvedListenError, resolve_listen
from supervisor.discovery.resolution import BadTargetError


async def find_listen(config: Config, state: HandoverState) -> tuple[HostPort, ...]:
    """The listen addresses as literals; those of the image before us if DNS is of no help.

    Its sockets are bound already, so a name that does not resolve just now is no reason to end.
    """
    given = tuple(map(str, config.listen_addr))
    try:
        return await resolve_listen(config.listen_addr, config.nameserver)
    except (UnresolvedListenError, BadTargetError) as error:
        if given != state.listen_given or not state.listen:
            raise BadTargetError(str(error)) from None
        return tuple(map(parse_listen, state.listen))
