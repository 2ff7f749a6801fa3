"""The list of sessions: what may be asked, which rows make the page, and the page as JSON.

The rows of all workers are folded while they come, and no more than two pages of them are kept.
"""

from __future__ import annotations

import base64
import binascii
import enum
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from typing import Any

from gateway.core import json_codec
from gateway.core.address import parse_endpoint
from gateway.core.messages import SessionDetail, SessionSlice
from gateway.core.records import dataclass
from supervisor.core.admin.session_holders import Process, host_part, leave_out_process
from supervisor.core.workers.worker_id import WorkerId

DEFAULT_LIMIT = 1000
MOST_LIMIT = 10_000
"""Rows of one page; whoever wants more asks for the next one. A page of these takes 15 MB."""

MOST_CLIENTS = 100_000
"""Clients whose addresses are remembered in order to find their processes; 15 MB."""


class Sort(enum.StrEnum):
    """``sort`` of a question: the oldest first, or those first that moved most."""

    AGE = "age"
    BYTES = "bytes"


class QueryError(Exception):
    """The question cannot be answered; the text says what was wrong and what was expected."""


class BusyError(Exception):
    """So much was asked before that there is no time left for this question."""


Key = tuple[float, float, int, int, str]
"""Where a row stands in the list: what it is sorted by, when the session began, slot, generation
and client. The client alone does not tell sessions apart: a process has one name on a UNIX socket.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionQuery:
    """``after``: only rows behind this place. ``endpoint``: only its sessions; "" is all."""

    endpoint: str = ""
    limit: int = DEFAULT_LIMIT
    sort: Sort = Sort.AGE
    after: Key | None = None


def read_query(pairs: Iterable[tuple[str, str]]) -> SessionQuery:
    """The question that a query string asks; QueryError if it is none."""
    given: dict[str, str] = {}
    for name, text in pairs:
        if name not in ("endpoint", "limit", "sort", "next"):
            raise QueryError(f"{name!r:.80}: expected endpoint, limit, sort or next")
        if name in given:
            raise QueryError(f"{name} was given twice")
        given[name] = text
    sort = _read_sort(given.get("sort", Sort.AGE))
    return SessionQuery(
        endpoint=read_endpoint(given.get("endpoint", "")),
        limit=_read_limit(given.get("limit", str(DEFAULT_LIMIT))),
        sort=sort,
        after=_read_place(given["next"], sort) if "next" in given else None,
    )


def read_endpoint(text: str) -> str:
    """The name of an endpoint in its one spelling, however ``--endpoints`` would take it.

    What is no name of an endpoint stays as it is: none is called so.
    """
    try:
        return str(parse_endpoint(text)[0])
    except ValueError:
        return text


def _read_sort(text: str) -> Sort:
    try:
        return Sort(text)
    except ValueError:
        raise QueryError(f"sort {text!r:.80}: expected age or bytes") from None


def _read_limit(text: str) -> int:
    """More than a page is no mistake: there is a next page."""
    if not (text.isascii() and text.isdigit()) or not text.strip("0"):
        raise QueryError(f"limit {text!r:.80}: expected a number of sessions, 1 or more")
    digits = text.lstrip("0")
    return min(int(digits), MOST_LIMIT) if len(digits) < 10 else MOST_LIMIT


def _read_place(text: str, sort: Sort) -> Key:
    try:
        sorted_by, value, started_at, slot, gen, client = json_codec.loads(
            base64.b64decode(text, altchars=b"-_", validate=True)
        )
        types = type(value), type(started_at), type(slot), type(gen), type(client)
        if sorted_by != sort or types != (float, float, int, int, str):
            raise ValueError
    except (ValueError, TypeError, binascii.Error):
        raise QueryError(
            f"next {text!r:.80}: expected what the page before gave, with the same sort"
        ) from None
    return value, started_at, slot, gen, client


def write_place(sort: Sort, place: Key) -> str:
    """The place as text that :func:`read_query` takes for ``next``."""
    return base64.urlsafe_b64encode(json_codec.dumps([sort, *place])).decode()


class SessionFold:
    """Takes the slices of all workers, and keeps the rows of one page and what all have in common.

    ``total`` counts all rows that match, those of other pages too. ``with_processes``: as in
    :class:`SessionPage`.
    """

    def __init__(self, query: SessionQuery, *, with_processes: bool = True) -> None:
        self._query = query
        self._with_processes = with_processes
        self._best: list[tuple[Key, WorkerId, int]] = []
        self._overflown = False
        self.total = 0
        self.clients: list[str] = []
        """The clients of all rows, as far as they may be remembered."""
        self.hosts: Counter[str] = Counter()
        """Sessions by the host of the client."""

    def add(self, who: WorkerId, rows: SessionSlice) -> None:
        by_age = self._query.sort is Sort.AGE
        after = self._query.after
        clients: Iterable[str] = rows.clients
        if not self._with_processes:
            clients = map(leave_out_process, rows.clients)
        summaries = zip(rows.started_at, rows.moved, clients, strict=True)
        for row, (started_at, moved, client) in enumerate(summaries, rows.first):
            if not client:  # it has ended
                continue
            self.total += 1
            self.hosts[host_part(client)] += 1
            if len(self.clients) < MOST_CLIENTS:
                self.clients.append(client)
            value = started_at if by_age else float(-moved)
            key = (value, started_at, who.slot, who.gen, client)
            if after is None or key > after:
                self._best.append((key, who, row))
        if len(self._best) > 2 * self._query.limit:
            self._trim()

    def _trim(self) -> None:
        self._best.sort()
        if len(self._best) > self._query.limit:
            self._overflown = True
            del self._best[self._query.limit :]

    def page(self) -> tuple[list[tuple[WorkerId, int]], str | None]:
        """The rows of the page in their order, and the place that the next one begins after."""
        self._trim()
        rows = [(who, row) for _, who, row in self._best]
        more = self._overflown and self._best
        return rows, write_place(self._query.sort, self._best[-1][0]) if more else None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionPage:
    """One page, as the sessions were at ``now``.

    ``missing``: why the list is not complete, a text for each worker.

    ``with_processes``: whether the asker may know the processes of the clients; ``processes`` are
    those that are known, by client.
    """

    query: SessionQuery
    now: float
    listen: Sequence[str]
    total: int
    next: str | None
    rows: Sequence[tuple[WorkerId, SessionDetail]]
    clients: Sequence[Mapping[str, Any]]
    processes: Mapping[str, Process] = field(default_factory=dict)
    with_processes: bool = True
    missing: Sequence[str] = ()

    def head(self) -> dict[str, Any]:
        """The document but for its last key, ``sessions``."""
        return {
            "listen": list(self.listen),
            "total": self.total,
            "sort": self.query.sort,
            "limit": self.query.limit,
            "endpoint": self.query.endpoint or None,
            "next": self.next,
            "incomplete": bool(self.missing),
            "missing": list(self.missing),
            "clients": list(self.clients),
        }

    def row(self, who: WorkerId, detail: SessionDetail) -> dict[str, Any]:
        """One of ``sessions``. The rates are means since the session began."""
        age_s = max(self.now - detail.started_at, 0.0)
        process = self.processes.get(detail.client) if detail.via is None else None
        client, via = detail.client, detail.via
        if not self.with_processes:
            client, via = leave_out_process(client), via and leave_out_process(via)
        return {
            "id": f"{who.slot}.{who.gen}.{detail.id}",
            "client": client,
            "via": via,
            "endpoint": detail.endpoint,
            "address": detail.address,
            "local": detail.local,
            "slot": who.slot,
            "gen": who.gen,
            "state": detail.state,
            "age_s": round(age_s, 3),
            "idle_s": round(min(detail.idle_s, age_s), 3),
            "bytes_in": detail.bytes_in,
            "bytes_out": detail.bytes_out,
            "rate_in": rate(detail.bytes_in, age_s),
            "rate_out": rate(detail.bytes_out, age_s),
            "client_rtt_s": detail.client_rtt_s,
            "client_retransmits": detail.client_retransmits,
            "endpoint_rtt_s": detail.endpoint_rtt_s,
            "endpoint_retransmits": detail.endpoint_retransmits,
            "pid": process.pid if process is not None else None,
            "command": process.command if process is not None else None,
            "unit": process.unit if process is not None else None,
        }


def rate(count: float, seconds: float) -> float:
    """Bytes per second; a session of less than a second counts as one of a second."""
    return round(count / max(seconds, 1.0), 1)
