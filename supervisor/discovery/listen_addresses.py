"""Listen addresses as they are bound: literal addresses, whatever names they were given by."""

from __future__ import annotations

from gateway.core.address import HostPort
from gateway.core.messages import MAX_LISTEN
from supervisor.core.discovery.endpoints import Answer, Question, QuestionKind, literal
from supervisor.core.discovery.system_names import Files
from supervisor.discovery.resolution import BadTargetError


async def resolve_listen(
    listen: tuple[HostPort, ...], *, files: Files | None = None
) -> tuple[HostPort, ...]:
    """Listen addresses as literals; a name such as ``localhost`` becomes all its addresses.

    An empty host (all interfaces) stays. Raises BadTargetError for a name that cannot be resolved.
    """
    resolved: dict[HostPort, None] = {}
    for each in listen:
        address = literal(each.host)
        if address or not each.host:
            resolved[HostPort(address or "", each.port)] = None
            continue
        from supervisor.discovery.resolver import (
            Resolver,  # 40 ms to import: not for literal addresses
        )

        outcome = await Resolver(files=files).ask(Question(QuestionKind.SEARCH, each.host))
        if not isinstance(outcome, Answer):
            raise BadTargetError(f"--listen-addr {each}: cannot resolve the host: {outcome.error}")
        for found in outcome.addresses:
            resolved[HostPort(found, each.port)] = None
    if len(resolved) > MAX_LISTEN:
        raise BadTargetError(
            f"--listen-addr: {len(resolved)} addresses, expected at most {MAX_LISTEN}"
        )
    return tuple(resolved)
