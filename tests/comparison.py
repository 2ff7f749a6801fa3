"""The table of the README against the peers, made from the tables of ``docs/performance.md``."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "performance.md"
SUBJECTS = ("etcd-gateway", "etcd gateway", "HAProxy", "nginx stream", "Envoy")

ROWS = (
    ("CPU per round trip, 64 sessions", "round trip, 64 sessions", "µs"),
    ("CPU per connection", "connection: connect, one round trip, close", "µs"),
    ("memory per idle session", "idle session", "B"),
    ("memory of the idle proxy", "idle proxy", "MB"),
    ("start, exec to first byte", "start, exec to first byte", "ms"),
)
"""The title of a row, the heading of the table that has its figures, and their unit."""


def draw() -> str:
    """The median of each measure by subject."""
    page = PAGE.read_text()
    lines = ["| | " + " | ".join(SUBJECTS) + " |", "|---|" + "---:|" * len(SUBJECTS)]
    for title, heading, unit in ROWS:
        medians = read_medians(page, heading)
        cells = [f"{medians[each]} {unit}" if each in medians else "" for each in SUBJECTS]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def read_medians(page: str, heading: str) -> dict[str, str]:
    """By subject the first column of the table under the heading; KeyError: there is none."""
    _, found, rest = page.partition(f"\n### {heading}\n")
    if not found:
        raise KeyError(heading)
    rows = re.findall(r"^\| ([^|]+)\| ([^|]+)\|", rest.partition("\n#")[0], re.MULTILINE)
    return {subject.strip(" *"): median.strip() for subject, median in rows[2:]}
