"""The command ``status``: the running gateway's status document as tables, or as it is."""

from __future__ import annotations

import contextlib
import datetime
import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from supervisor.cli.admin_client import UnreachableError, fetch_status
from supervisor.cli.console import PROGRAM

EXIT_READY = 0
EXIT_DEGRADED = 3
"""It answers, and is not ready: degraded, starting or draining."""
EXIT_UNREACHABLE = 4

REFRESH_S = 2.0

PIPE_COLUMNS = 200

NARROW_COLUMNS = 110
"""Fewer than these have no room for all figures beside a name of usual length."""

COLORS = {
    "ready": "green", "active": "green", "degraded": "red", "inactive": "red", "backoff": "red",
    "hangs": "red", "starting": "yellow", "draining": "yellow", "removed": "bright_black",
}  # fmt: skip


def run(admin_addrs: Sequence[str], *, as_json: bool = False, watch: bool = False) -> int:
    """Print the status once, or again and again until interrupted; the exit code says how it is."""
    if watch:
        return _watch(admin_addrs, as_json=as_json)
    try:
        document = fetch_status(admin_addrs)
    except UnreachableError as error:
        sys.stderr.write(f"{PROGRAM}: {error}\n")
        return EXIT_UNREACHABLE
    if as_json:
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        console = _console()
        console.print(render(document, console.width))
    return exit_code(document)


def exit_code(document: Mapping[str, Any]) -> int:
    return EXIT_READY if document["state"] == "ready" else EXIT_DEGRADED


def _watch(admin_addrs: Sequence[str], *, as_json: bool) -> int:
    """Until interrupted. JSON comes one document a line; a table stays in its place."""
    code = EXIT_UNREACHABLE
    console = _console()
    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as stack:
        tables = not as_json and console.is_terminal
        live = stack.enter_context(Live(console=console, screen=True)) if tables else None
        while True:
            try:
                document = fetch_status(admin_addrs)
                code = exit_code(document)
                shown: RenderableType = (
                    json.dumps(document) if as_json else render(document, console.width)
                )
            except UnreachableError as error:
                code = EXIT_UNREACHABLE
                shown = json.dumps({"error": str(error)}) if as_json else Text(str(error), "red")
            if live is not None:
                live.update(shown, refresh=True)
            elif as_json:
                sys.stdout.write(f"{shown}\n")
                sys.stdout.flush()
            else:
                console.print(shown)
            time.sleep(REFRESH_S)
    return code


def _console() -> Console:
    """As wide as the terminal; wide enough for whole lines where there is none."""
    console = Console()
    return console if console.is_terminal else Console(width=PIPE_COLUMNS)


def render(document: Mapping[str, Any], width: int = PIPE_COLUMNS) -> RenderableType:
    """The document as people read it: a headline, then endpoints, workers and what happened.

    Where ``width`` columns are too few, what matters least is left out.
    """
    small = width < NARROW_COLUMNS
    parts: list[RenderableType] = [_headline(document), Text()]
    parts += [_endpoints(document, small=small), Text(), _workers(document, small=small), Text()]
    return Group(*parts, *_facts(document))


def _headline(document: Mapping[str, Any]) -> Text:
    totals = document["totals"]
    text = Text.assemble(
        ("etcd-gateway ", "bold"),
        _state(document["state"]),
        f" on {', '.join(document['listen'])}, version {document['version']}, "
        f"pid {document['pid']}, up {lasting(document['uptime_s'])}\n",
        f"{totals['sessions']} sessions, {totals['sessions_total']} in total, "
        f"{totals['refused']} refused; {size(totals['bytes_in'])} in, "
        f"{size(totals['bytes_out'])} out",
    )
    for reason in document["unready"]:
        text.append(f"\nnot ready: {reason}", "red")
    return text


def _endpoints(document: Mapping[str, Any], *, small: bool) -> Table:
    columns = ("PRIO", "WEIGHT", "SESSIONS", "TOTAL", "IN", "OUT")
    table = _table("ENDPOINT", "STATE", "SINCE", *(("SESSIONS",) if small else columns))
    table.add_column("LAST ERROR", overflow="fold")
    now = _now(document)
    for each in sorted(document["endpoints"], key=lambda each: each["priority"]):
        since = "" if each["since"] is None else lasting(now - _seconds(each["since"]))
        sessions = str(each["sessions"])
        figures = (
            str(each["priority"]), str(each["weight"]), sessions, str(each["sessions_total"]),
            size(each["bytes_in"]), size(each["bytes_out"]),
        )  # fmt: skip
        table.add_row(
            Text(each["endpoint"]), _state(each["state"]), since,
            *((sessions,) if small else figures), Text(each["last_error"] or ""),
        )  # fmt: skip
    return table


def _workers(document: Mapping[str, Any], *, small: bool) -> Table:
    table = _table("WORKER", "STATE", "PID", "SESSIONS", "LAG", "HEARTBEAT")
    for column in () if small else ("GEN", "TOTAL", "MEMORY", "LIST"):
        table.add_column(column, justify="right", no_wrap=True)
    for each in sorted(document["workers"], key=lambda each: (each["slot"], -each["gen"])):
        age = each["heartbeat_age_s"]
        state = _state("hangs" if each["hangs"] else each["state"])
        more = (
            str(each["gen"]), str(each["sessions_total"]),
            size(each["rss_bytes"]), f"v{each['snapshot_version']}",
        )  # fmt: skip
        table.add_row(
            f"slot {each['slot']}", state, str(each["pid"] or "-"), str(each["sessions"]),
            f"{each['loop_lag_s'] * 1000:.1f} ms", "-" if age is None else f"{age:.1f} s",
            *(() if small else more),
        )  # fmt: skip
    return table


def _facts(document: Mapping[str, Any]) -> list[Text]:
    found, again, now = document["discovery"], document["reload"], _now(document)
    source = f"SRV records of {found['srv']}" if found["srv"] else "the --endpoints list"
    lines = [f"discovery: {source}"]
    if found["last_success_at"]:
        lines[0] += f", last answer {lasting(now - _seconds(found['last_success_at']))} ago"
    if found["next_refresh_s"] is not None:
        lines[0] += f", next in {lasting(found['next_refresh_s'])}"
    if found["last_error"]:
        lines.append(f"discovery error: {found['last_error']}")
    lines += [f"refused: {name}: {why}" for name, why in found["refused"].items()]
    lines += [
        f"error: another program (uid {each['uid']}) listens on {each['address']}, too"
        for each in document.get("foreign_listeners", ())
    ]
    if again["last_at"]:
        ago = lasting(now - _seconds(again["last_at"]))
        why = f": {again['last_error']}" if again["last_error"] else ""
        lines.append(f"reload: {again['last_result']} {ago} ago{why}")
    return [Text(line, "red" if "error" in line or "failed" in line else "") for line in lines]


def _table(*columns: str) -> Table:
    """No lines and no padding outside: as greppable as ``ps``. Figures stand to the right."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < 2 else "right", no_wrap=True)
    return table


def _state(state: str) -> Text:
    return Text(state, COLORS.get(state, ""))


def _now(document: Mapping[str, Any]) -> float:
    """The gateway's clock, not ours."""
    return _seconds(document["started_at"]) + float(document["uptime_s"])


def _seconds(instant: str) -> float:
    return datetime.datetime.fromisoformat(instant).timestamp()


def lasting(seconds: float) -> str:
    """A length of time in its two largest units."""
    left = max(round(seconds), 0)
    for unit, length, smaller, part in (
        ("d", 86400, "h", 3600),
        ("h", 3600, "m", 60),
        ("m", 60, "s", 1),
    ):
        if left >= length:
            return f"{left // length}{unit}{left % length // part}{smaller}"
    return f"{left}s"


def size(count: float) -> str:
    """Bytes with a binary unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
