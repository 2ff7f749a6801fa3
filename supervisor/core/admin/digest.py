"""What people should see first in a status document: one sentence, then what is wrong.

The document comes from a running gateway, which may be older or newer than this program, so keys
that were added to it later are optional here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Document = Mapping[str, Any]

ENDPOINT_RANKS = {
    "inactive": 0,
    "refused": 1,
    "draining": 2,
    "kept": 3,
    "partly": 4,
    "degraded": 5,
    "removed": 6,
}
WORKER_RANKS = {"hangs": 0, "backoff": 1, "starting": 2, "draining": 3}
"""What is wrong comes first; every other state comes after these."""

LAST = 9


def sentence(document: Document) -> str:
    """The whole gateway in one sentence; its first word is the state."""
    present = [each for each in document["endpoints"] if each["state"] != "removed"]
    active = sum(each["state"] == "active" for each in present)
    slots = {each["slot"] for each in document["workers"] if word_for_worker(each) == "ready"}
    figures = (
        f"{active} of {len(present)} endpoints active, "
        f"{len(slots)} of {document['slots']} workers ready"
    )
    sessions = _count(document["totals"]["sessions"], "session")
    if document["state"] != "draining":
        return f"{document['state']}: {figures}, {sessions}"
    left = document.get("drain_deadline_s")
    cut = "" if left is None else f", cut in {max(round(left), 0)} s"
    return f"draining: {sessions} left{cut}"


def problems(document: Document) -> list[str]:
    """What is wrong with the gateway as a whole, a line each."""
    found, reload = document["discovery"], document["reload"]
    lines = [f"not ready: {each}" for each in document["unready"] if each != "draining"]
    lines += [
        f"another program (uid {each['uid']}) listens on {each['address']} and takes clients"
        for each in document.get("foreign_listeners", ())
    ]
    if found["last_error"]:
        lines.append(f"discovery: {found['last_error']}")
    if (found.get("member_sync") or {}).get("last_error"):
        lines.append(f"member sync: {found['member_sync']['last_error']}")
    if reload.get("refused", reload["last_result"] == "failed"):
        lines.append(f"the last reload failed: {reload['last_error'] or 'see the log'}")
    if in_vain := reload.get("needs_restart"):
        lines.append(f"changed in the configuration, used after a restart: {', '.join(in_vain)}")
    return lines


def word_for_endpoint(endpoint: Mapping[str, Any]) -> str:
    """The state of an endpoint in one word.

    ``kept``: it is active only because too few others are. ``partly``: it is active, and one of
    its addresses is not. ``degraded``: it is active, and says itself that something is wrong.
    """
    if endpoint.get("kept"):
        return "kept"
    if endpoint["state"] == "active" and inactive_addresses(endpoint):
        return "partly"
    if endpoint["state"] == "active" and endpoint.get("degraded"):
        return "degraded"
    return str(endpoint["state"])


def inactive_addresses(endpoint: Mapping[str, Any]) -> dict[str, str]:
    """The addresses that are inactive, each with its last error."""
    states = endpoint.get("address_states") or {}
    return {
        address: each["last_error"] or "inactive"
        for address, each in states.items()
        if each["state"] == "inactive"
    }


def word_for_worker(worker: Mapping[str, Any]) -> str:
    """The state of a worker in one word."""
    return "hangs" if worker["hangs"] else str(worker["state"])


def order_endpoints(document: Document) -> list[dict[str, Any]]:
    """Every endpoint, what is wrong first, then by priority and name.

    Endpoints that were found and refused are among them, with ``state`` refused and the reason as
    ``last_error``.
    """
    known = {each["endpoint"] for each in document["endpoints"]}
    refused = [
        {"endpoint": name, "state": "refused", "priority": 0, "last_error": reason}
        for name, reason in document["discovery"]["refused"].items()
        if name not in known
    ]
    return sorted(
        [*document["endpoints"], *refused],
        key=lambda each: (
            ENDPOINT_RANKS.get(word_for_endpoint(each), LAST),
            each["priority"],
            natural_key(each["endpoint"]),
        ),
    )


def order_workers(document: Document) -> list[Mapping[str, Any]]:
    """Every worker, what is wrong first, then by slot, the newest generation first."""
    return sorted(
        document["workers"],
        key=lambda each: (
            WORKER_RANKS.get(word_for_worker(each), LAST),
            each["slot"],
            -each["gen"],
        ),
    )


def count_wrong(states: Iterable[str]) -> int:
    """How many are neither active nor ready."""
    return sum(state not in ("active", "ready") for state in states)


def share_rows(room: int, wanted: Sequence[int], wrong: Sequence[int]) -> list[int]:
    """How many rows each table may have where all of them together may have ``room``.

    ``wanted`` is how many each has, ``wrong`` how many of them are wrong: these go first. No table
    gets fewer than one row, and a table that is cut needs one row more, to say so.
    """
    given = [min(1, each) for each in wanted]
    for goals in (wrong, wanted):
        for i, goal in enumerate(goals):
            given[i] += max(0, min(goal - given[i], room - sum(given)))
    return given


def say_rest(states: Sequence[str]) -> str:
    """The line below a table that was cut: ``... 20 more, all active``."""
    counts = {state: states.count(state) for state in dict.fromkeys(states)}
    if len(counts) == 1:
        return f"... {len(states)} more, all {states[0]}"
    parts = ", ".join(f"{number} {state}" for state, number in counts.items())
    return f"... {len(states)} more: {parts}"


def natural_key(name: str) -> tuple[tuple[int, int | str], ...]:
    """A key that sorts ``infra2`` before ``infra10``."""
    pieces = re.findall(r"[0-9]+|[^0-9]+", name)
    return tuple((0, int(each)) if each[0] in "0123456789" else (1, each) for each in pieces)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
