"""The command ``status``: the running gateway's status document as tables, or as it is.

What is wrong comes first. A terminal shows as much as fits; a pipe gets everything.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from supervisor.cli.admin_client import fetch_status
from supervisor.cli.figures import NARROW_COLUMNS, lasting, size
from supervisor.cli.tables import PIPE_COLUMNS, Cell, Output, Part, line, make_table, stack, word
from supervisor.cli.watch import Showing
from supervisor.core.admin import digest
from supervisor.core.certificates import WARN_S
from supervisor.core.exit_codes import EXIT_DEGRADED, EXIT_OK


def run(admin_addrs: Sequence[str], *, as_json: bool = False, watch: bool = False) -> int:
    """Print the status once, or again and again until interrupted; the exit code says how it is."""
    output = Output()
    showing = Showing(
        fetch=lambda: fetch_status(admin_addrs),
        exit_code=exit_code,
        draw=lambda document: fit(document, output),
        output=output,
        as_json=as_json,
    )
    return showing.again_and_again() if watch else showing.once()


def exit_code(document: Mapping[str, Any]) -> int:
    return EXIT_OK if document["state"] == "ready" else EXIT_DEGRADED


def fit(document: Mapping[str, Any], output: Output) -> Part:
    """The document in the space that there is: tables are cut where they do not fit a terminal."""
    part = render(document, output.width)
    room = output.room
    if room is None or (lines := output.count_lines(part)) <= room:
        return part
    endpoints, workers = len(document["endpoints"]), len(document["workers"])
    rows = endpoints + len(document["discovery"]["refused"]) + workers
    around = lines - rows  # headings, facts, and errors that need a second line
    for rows_shown in range(max(room - around, 2), 1, -1):
        part = render(document, output.width, rows_shown)
        if output.count_lines(part) <= room:
            break
    return part


def render(document: Mapping[str, Any], width: int = PIPE_COLUMNS, rows: int | None = None) -> Part:
    """One sentence, what is wrong, the endpoints, the workers, then everything else.

    Where ``width`` columns are too few, what matters least is left out. ``rows`` is how many the
    two tables may have together.
    """
    small = width < NARROW_COLUMNS
    endpoints, workers = digest.order_endpoints(document), digest.order_workers(document)
    states = (
        [digest.word_for_endpoint(each) for each in endpoints],
        [digest.word_for_worker(each) for each in workers],
    )
    shown = [len(endpoints), len(workers)]
    if rows is not None:
        shown = digest.share_rows(rows, shown, [digest.count_wrong(each) for each in states])
    state, _, rest = digest.sentence(document).partition(":")
    parts: list[Part] = [line(word(state), f":{rest}")]
    parts += [line(each, style="red") for each in digest.problems(document)]
    parts += ["", _endpoints(endpoints[: shown[0]], document, small=small)]
    parts += [line(digest.say_rest(states[0][shown[0] :]))] if shown[0] < len(endpoints) else []
    parts += ["", _workers(workers[: shown[1]], small=small)]
    parts += [line(digest.say_rest(states[1][shown[1] :]))] if shown[1] < len(workers) else []
    return stack([*parts, "", *_facts(document)])


def _endpoints(
    shown: Sequence[Mapping[str, Any]], document: Mapping[str, Any], *, small: bool
) -> Part:
    now = _now(document)
    classes = len({each["priority"] for each in document["endpoints"]}) > 1
    synced = bool(document["discovery"].get("member_sync"))
    weights = any(each["weight"] for each in document["endpoints"])
    columns = ["SESSIONS"] if small else ["SESSIONS", "TOTAL", "IN", "OUT"]
    columns += ["PRIORITY"] * (classes and not small) + ["WEIGHT"] * (weights and not small)
    columns += ["VERSION"] * (any(each.get("etcd_version") for each in shown) and not small)
    columns += ["CERTIFICATE"] * any(each.get("certificate_not_after") for each in shown)
    columns += ["SOURCE"] * (synced and not small)
    rows: list[list[Cell]] = []
    for each in shown:
        figures: dict[str, Cell] = {
            "SESSIONS": str(each.get("sessions", "")),
            "TOTAL": str(each.get("sessions_total", "")),
            "IN": size(each["bytes_in"]) if "bytes_in" in each else "",
            "OUT": size(each["bytes_out"]) if "bytes_out" in each else "",
            "PRIORITY": str(each["priority"]) if "weight" in each else "",
            "WEIGHT": str(each.get("weight", "")),
            "VERSION": each.get("etcd_version") or "",
            "CERTIFICATE": _certificate(each.get("certificate_not_after"), now),
            "SOURCE": str(each.get("source", "")),
        }
        since = each.get("since")
        lasted = "" if since is None else lasting(now - _seconds(since))
        row = [each["endpoint"], word(each["state"]), lasted, *(figures[name] for name in columns)]
        rows.append([*row, _last_error(each, now)])
    head = ["ENDPOINT", "STATE", "SINCE", *columns]
    return make_table(head, rows, left=head[:2], last="LAST ERROR")


def _certificate(ends: str | None, now: float) -> Cell:
    """How long the certificate still lasts; in red when the log warns of it, too."""
    if ends is None:
        return ""
    left = _seconds(ends) - now
    text = lasting(left) if left > 0 else "ended"
    return line(text, style="red") if left < WARN_S else text


def _last_error(each: Mapping[str, Any], now: float) -> str:
    """The last error; with its age if it is over."""
    error = each["last_error"]
    if error and each.get("kept"):
        return f"kept active, too few others are: {error}"
    if each["state"] == "active" and (down := digest.inactive_addresses(each)):
        return "; ".join(f"{address} inactive: {why}" for address, why in down.items())
    if each["state"] == "active" and (degraded := each.get("degraded")):
        return f"degraded: {degraded}"
    if not error or each["state"] != "active":
        return error or ""
    at = each.get("last_error_at")
    return f"earlier: {error}" if at is None else f"{lasting(now - _seconds(at))} ago: {error}"


def _workers(shown: Sequence[Mapping[str, Any]], *, small: bool) -> Part:
    columns = ["PID", "SESSIONS", "LAG", "HEARTBEAT"]
    columns += [] if small else ["GENERATION", "TOTAL", "MEMORY", "LIST"]
    rows: list[list[Cell]] = []
    for each in shown:
        age = each["heartbeat_age_s"]
        figures = {
            "PID": str(each["pid"] or "-"),
            "SESSIONS": str(each["sessions"]),
            "LAG": f"{each['loop_lag_s'] * 1000:.1f} ms",
            "HEARTBEAT": "-" if age is None else f"{age:.1f} s",
            "GENERATION": str(each["gen"]),
            "TOTAL": str(each["sessions_total"]),
            "MEMORY": size(each["rss_bytes"]),
            "LIST": f"v{each['snapshot_version']}",
        }
        state = word(digest.word_for_worker(each))
        rows.append([f"slot {each['slot']}", state, *(figures[name] for name in columns)])
    head = ["WORKER", "STATE", *columns]
    return make_table(head, rows, left=head[:2])


def _facts(document: Mapping[str, Any]) -> list[Part]:
    found, reload, now = document["discovery"], document["reload"], _now(document)
    totals = document["totals"]
    host = f"{document['host']}: " if document.get("host") else ""
    who = f"{host}etcd-gateway {document['version']} on {', '.join(document['listen'])}"
    moved = f"{size(totals['bytes_in'])} in, {size(totals['bytes_out'])} out"
    ever = f"{totals['sessions_total']} sessions, {totals['refused']} refused, {moved}"
    lines = [
        f"{who}, pid {document['pid']}, up {lasting(document['uptime_s'])}",
        f"since the start: {ever}",
    ]
    source = f"SRV records of {found['srv']}" if found["srv"] else "the --endpoints list"
    if found["last_success_at"] and found.get("results") == {}:  # addresses alone
        source += ", nothing to look up"
    elif found["last_success_at"]:
        source += f", all answered {lasting(now - _seconds(found['last_success_at']))} ago"
    if found["next_refresh_s"] is not None:
        source += f", next in {lasting(found['next_refresh_s'])}"
    lines.append(f"discovery: {source}")
    if synced := found.get("member_sync"):
        lines.append(f"member sync: {_member_sync(synced, now)}")
    if reload["last_at"]:
        ago = lasting(now - _seconds(reload["last_at"]))
        lines.append(f"reload: {reload['last_result']} {ago} ago")
    return [line(each) for each in lines]


def _member_sync(synced: Mapping[str, Any], now: float) -> str:
    """Which list endpoints follow, when a member answered last, and which members are not used."""
    text = "no list adopted"
    if synced["cluster_id"]:
        members = {each["name"] for each in synced["members"]}
        text = f"{len(members)} members of cluster {synced['cluster_id']}"
        text += "" if synced["confirmed"] else ", not confirmed"
    if synced["last_success_at"]:
        text += f", last answer {lasting(now - _seconds(synced['last_success_at']))} ago"
    return "; ".join([text, *(f"{name} {why}" for name, why in synced["left_out"].items())])


def _now(document: Mapping[str, Any]) -> float:
    """The gateway's clock, not ours."""
    return _seconds(document["started_at"]) + float(document["uptime_s"])


def _seconds(instant: str) -> float:
    return datetime.datetime.fromisoformat(instant).timestamp()
