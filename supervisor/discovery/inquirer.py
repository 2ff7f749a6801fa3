"""Carries out inquiries: queries to one nameserver after the other, as ``core`` says.

One inquiry is about one record type of one absolute name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from supervisor.core.discovery.inquiry import GaveUp, Heard, Lost, Patience, Try, inquire
from supervisor.core.discovery.nameservers import Nameservers
from supervisor.core.discovery.replies import Meaning, Reply, ReplyKind, read_meaning
from supervisor.core.discovery.trace import MAX_RECORDS, Exchange, Step
from supervisor.discovery.dns_message import (
    MalformedReplyError,
    Query,
    compose_query,
    parse_reply,
)
from supervisor.discovery.dns_transport import (
    NoReplyError,
    QuestionSockets,
    ServerAddress,
    exchange,
)


class Inquirer:
    """Asks ``servers``, in this order, and remembers what it learned of each."""

    def __init__(self, servers: Sequence[ServerAddress], *, rotate: bool) -> None:
        self._servers = servers
        self._nameservers = Nameservers(len(servers), rotate=rotate)

    def all_silent(self, now: float) -> bool:
        """Whether each nameserver is silent, as far as is known."""
        return self._nameservers.all_silent(now)

    async def inquire(
        self, name: str, kind: str, patience: Patience, steps: list[Step]
    ) -> Meaning | GaveUp:
        """Ask until there is an answer or no hope of one; ``steps`` gets what was done.

        BadNameError: no query can carry the name.
        """
        course = inquire(self._nameservers, patience, asyncio.get_running_loop().time())
        attempt = next(course)
        sockets: QuestionSockets[tuple[Reply, bool]] = QuestionSockets()
        queries: dict[bool, Query] = {}
        try:
            while True:
                query = queries.get(attempt.edns)
                if query is None:
                    query = queries[attempt.edns] = compose_query(name, kind, edns=attempt.edns)
                heard, step = await self._query(name, kind, attempt, query, sockets)
                steps.append(step)
                attempt = course.send(heard)
        except StopIteration as end:
            result: Meaning | GaveUp = end.value
            return result
        finally:
            await sockets.close()

    def describe(self, gave_up: GaveUp) -> str:
        """The newest error of each nameserver, in one line."""
        errors = sorted(gave_up.errors.items())
        texts = (f"{error} from {self._servers[server]}" for server, error in errors)
        return "; ".join(texts) or "timeout"

    async def _query(
        self,
        name: str,
        kind: str,
        attempt: Try,
        query: Query,
        sockets: QuestionSockets[tuple[Reply, bool]],
    ) -> tuple[Heard | Lost, Step]:
        """One query to one nameserver."""

        def parse(wire: bytes) -> tuple[Reply, bool] | None:
            reply = parse_reply(wire, query)
            return None if reply is None else (reply, attempt.edns)

        now = asyncio.get_running_loop().time
        began_at = now()
        server = self._servers[attempt.server]
        heard: Heard | Lost
        flags: tuple[str, ...] = ()
        try:
            reply, edns = await exchange(
                server,
                query.wire,
                sockets=sockets,
                tcp=attempt.tcp,
                timeout_s=attempt.timeout_s,
                parse=parse,
            )
            meaning = read_meaning(reply, name, kind, edns=edns)
            heard, flags = Heard(meaning, now(), edns), reply.flags
            attempt = replace(attempt, edns=edns)
        except NoReplyError as error:
            heard = Lost(str(error), now(), silent=error.silent)
        except MalformedReplyError as error:
            heard = Lost(str(error), now(), silent=False)
        step = _step(name, kind, str(server), attempt, heard, flags, heard.at - began_at)
        return heard, step


def _step(
    name: str,
    kind: str,
    server: str,
    attempt: Try,
    heard: Heard | Lost,
    flags: tuple[str, ...],
    took_s: float,
) -> Exchange:
    ttl_s: float | None = None
    records: tuple[str, ...] = ()
    if isinstance(heard, Lost):
        said = heard.error
    else:
        meaning = heard.meaning
        alias = f"an alias of {meaning.alias}" if meaning.alias not in ("", name) else ""
        said = meaning.text or alias or meaning.kind.value
        if meaning.kind in (ReplyKind.RECORDS, ReplyKind.NO_NAME, ReplyKind.NO_RECORDS):
            ttl_s = meaning.ttl_s
        records = tuple(each.data for each in meaning.records[:MAX_RECORDS])
        if (more := len(meaning.records) - MAX_RECORDS) > 0:
            records += (f"and {more} more",)
    return Exchange(
        name=name,
        kind=kind,
        server=server,
        tcp=attempt.tcp,
        edns=attempt.edns,
        said=said,
        took_s=took_s,
        flags=flags,
        ttl_s=ttl_s,
        records=records,
    )
