"""The command ``sessions``: the open sessions of the running gateway as a table, or as JSON.

A terminal shows as many as fit, a pipe gets a page; ``--limit`` asks for more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.core.records import dataclass
from supervisor.cli.admin_client import (
    UnreachableError,
    fetch_sessions,
    fetch_status,
    is_of_this_host,
)
from supervisor.cli.figures import NARROW_COLUMNS, lasting, size
from supervisor.cli.tables import PIPE_COLUMNS, Cell, Output, Part, line, make_table, stack, word
from supervisor.cli.watch import Document, Showing
from supervisor.core.admin.session_holders import TOP_CLIENTS, Holders, Process
from supervisor.core.admin.session_list import DEFAULT_LIMIT, MOST_LIMIT, Sort, read_endpoint
from supervisor.core.config_error import ConfigError
from supervisor.core.exit_codes import EXIT_DEGRADED, EXIT_OK
from supervisor.system.socket_holders import find_holders

HEAD_LINES = 6
"""What stands around the rows: the sentence, who holds most, the heading, the rest."""

TOP_SHOWN = 5

SORTED_BY = {Sort.AGE: "the oldest first", Sort.BYTES: "those that moved most first"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the command line asks for. ``limit`` None: as many as the output has room for."""

    endpoint: str = ""
    limit: int | None = None
    sort: Sort = Sort.AGE


def read_wish(*, endpoint: str | None, limit: str | None, sort: str | None) -> Wish:
    """What the options say; ConfigError if one of them says nothing."""
    if endpoint is not None and (not endpoint.isprintable() or endpoint[:1] in ("", "-")):
        raise ConfigError("--endpoint", endpoint, "expected an endpoint, as status shows it")
    if limit is not None and not (limit.isascii() and limit.isdigit() and limit.strip("0")):
        raise ConfigError("--limit", limit, "expected a number of sessions, 1 or more")
    if sort is not None and sort not in ("age", "bytes"):
        raise ConfigError("--sort", sort, "expected age or bytes")
    return Wish(
        endpoint=read_endpoint(endpoint or ""),
        limit=None if limit is None else int(limit.lstrip("0")[:18]),
        sort=Sort(sort or "age"),
    )


def run(
    admin_addrs: Sequence[str], wish: Wish, *, as_json: bool = False, watch: bool = False
) -> int:
    """Print the sessions once, or again and again until interrupted.

    The exit code is that of ``status``: 3 if the list is not complete, 4 if nobody answers.
    """
    output = Output()
    before: Document = {"sessions": []}

    def fetch() -> Document:
        """The rates of one after another are those between the two."""
        nonlocal before
        document = _fetch(admin_addrs, wish, output, as_json=as_json)
        set_rates(before, document)
        before = document
        return document

    showing = Showing(
        fetch=fetch,
        exit_code=exit_code,
        draw=lambda document: render(document, output.width),
        output=output,
        as_json=as_json,
    )
    return showing.again_and_again() if watch else showing.once()


def exit_code(document: Mapping[str, Any]) -> int:
    return EXIT_DEGRADED if document["incomplete"] else EXIT_OK


def _fetch(admin_addrs: Sequence[str], wish: Wish, output: Output, *, as_json: bool) -> Document:
    """The first sessions of the list, page by page where one does not have all of them."""
    wanted = wish.limit
    if wanted is None:
        room = None if as_json else output.room
        wanted = DEFAULT_LIMIT if room is None else max(room - HEAD_LINES, 1)
    query = {"sort": wish.sort.value, "limit": str(min(wanted, MOST_LIMIT))}
    if wish.endpoint:
        query["endpoint"] = wish.endpoint
    document = fetch_sessions(admin_addrs, query)
    while document["next"] and len(document["sessions"]) < wanted:
        query["next"] = document["next"]
        query["limit"] = str(min(wanted - len(document["sessions"]), MOST_LIMIT))
        page = fetch_sessions(admin_addrs, query)
        page["sessions"] = document["sessions"] + page["sessions"]
        page["missing"] = list(dict.fromkeys(document["missing"] + page["missing"]))
        page["incomplete"] = document["incomplete"] or page["incomplete"]
        document = page
    document["limit"] = wanted
    if wish.endpoint and not document["total"] and not as_json:
        document["unknown"] = not _has_endpoint(admin_addrs, wish.endpoint)
    if any(is_of_this_host(address) for address in admin_addrs):
        add_processes(document)
    return document


def _has_endpoint(admin_addrs: Sequence[str], name: str) -> bool:
    """Whether the gateway has it: no sessions of a name that nobody has would be taken for good."""
    try:
        endpoints = fetch_status(admin_addrs)["endpoints"]
    except UnreachableError:
        return True
    return any(each["endpoint"] == name for each in endpoints)


def add_processes(document: Document) -> None:
    """Find the processes that the gateway may not see: who asks may see more, root sees all."""
    unknown = [each for each in document["sessions"] if each["pid"] is None]
    hosts = {
        each["client"]: each["sessions"] for each in document["clients"] if each["pid"] is None
    }
    if not unknown or not hosts:
        return
    ports = {
        int(port) for each in document["listen"] if (port := each.rpartition(":")[2]).isdigit()
    }
    processes: dict[str, Process] = {}
    names = [*hosts, *(each["client"] for each in unknown)]
    for piece in (*find_holders(None, ports), *find_holders(names, ())):
        processes |= piece
    for each in unknown:
        process = processes.get(each["client"]) if each["via"] is None else None
        if process is not None:
            each["pid"], each["command"], each["unit"] = process.pid, process.command, process.unit
    found = [each for each in document["clients"] if each["pid"] is not None]
    holders = Holders(hosts)
    holders.add(processes)
    found += holders.top()
    found.sort(key=lambda each: -each["sessions"])
    document["clients"] = found[:TOP_CLIENTS]


def set_rates(before: Mapping[str, Any], document: Document) -> None:
    """Give the sessions that both documents have the rates between the two."""
    known = {each["id"]: each for each in before["sessions"]}
    for each in document["sessions"]:
        earlier = known.get(each["id"])
        if earlier is None or (passed_s := each["age_s"] - earlier["age_s"]) <= 0:
            continue
        for way in ("in", "out"):
            moved = each[f"bytes_{way}"] - earlier[f"bytes_{way}"]
            if moved >= 0:  # else its id went to another session
                each[f"rate_{way}"] = round(moved / passed_s, 1)


def render(document: Mapping[str, Any], width: int = PIPE_COLUMNS) -> Part:
    """One sentence, what is missing, who holds most sessions, then the sessions.

    Where ``width`` columns are too few, what matters least is left out.
    """
    rows, total = document["sessions"], document["total"]
    of = f" of {document['endpoint']}" if document["endpoint"] else ""
    many = f"{total} session{'' if total == 1 else 's'}{of}"
    order = f", {SORTED_BY[Sort(document['sort'])]}" if len(rows) > 1 else ""
    parts: list[Part] = [line(many + order)]
    if document.get("unknown"):
        told = "the gateway has no endpoint of this name; etcd-gateway status has their names"
        parts.append(line(told, style="yellow"))
    parts += [line(f"incomplete: {each}", style="red") for each in document["missing"]]
    if total > 1:
        holders = [_holder(each) for each in document["clients"][:TOP_SHOWN]]
        parts.append(line(f"most sessions: {', '.join(holders)}"))
    if rows:
        parts += ["", _table(rows, small=width < NARROW_COLUMNS)]
    if len(rows) < total:
        parts.append(line(f"... {total - len(rows)} more; --limit shows more of them"))
    return stack(parts)


def _table(rows: Sequence[Mapping[str, Any]], *, small: bool) -> Part:
    columns = ["AGE", "IDLE"]
    columns += [] if small else ["IN", "OUT", "IN/S", "OUT/S", "RTT", "RESENT", "SLOT"]
    via = any(each["via"] for each in rows) and not small
    process = any(each["pid"] for each in rows) and not small
    head = ["CLIENT", *["VIA"] * via, "ENDPOINT", "STATE"]
    body: list[list[Cell]] = []
    for each in rows:
        figures = {
            "AGE": lasting(each["age_s"]),
            "IDLE": lasting(each["idle_s"]),
            "IN": size(each["bytes_in"]),
            "OUT": size(each["bytes_out"]),
            "IN/S": size(each["rate_in"]),
            "OUT/S": size(each["rate_out"]),
            "RTT": _milliseconds(each["endpoint_rtt_s"]),
            "RESENT": str((each["client_retransmits"] or 0) + (each["endpoint_retransmits"] or 0)),
            "SLOT": str(each["slot"]),
        }
        row: list[Cell] = [each["client"]]
        row += [each["via"] or "-"] * via
        row += [_endpoint(each), word(each["state"]), *(figures[name] for name in columns)]
        row += [_process(each)] * process
        body.append(row)
    last = "PROCESS" if process else ""
    return make_table([*head, *columns], body, left=head, last=last, names=len(head) - 1)


def _endpoint(each: Mapping[str, Any]) -> str:
    """The endpoint, with the address where that says more."""
    name, address = each["endpoint"], each["address"]
    if not name:
        return "-"
    return name if not address or address in name else f"{name} ({address})"


def _process(each: Mapping[str, Any]) -> str:
    """``etcdctl[4711] backup.service``; "" if it is not known."""
    if each["pid"] is None:
        return ""
    unit = f" {each['unit']}" if each["unit"] else ""
    return f"{each['command'] or '?'}[{each['pid']}]{unit}"


def _holder(each: Mapping[str, Any]) -> str:
    return f"{_process(each) or each['client'] or '?'} {each['sessions']}"


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.1f} ms"
