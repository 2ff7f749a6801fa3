"""The figures of ``docs/fleet.json`` as the table of ``docs/fleet.md``."""

from __future__ import annotations

import json
from pathlib import Path

FILE = Path(__file__).resolve().parents[2] / "docs" / "fleet.json"


def draw_table() -> str:
    """Scene by scene, before and now, for each size."""
    results = json.loads(FILE.read_text())
    former, now = (results[when]["figures"] for when in ("before", "now"))
    lines = ["| hosts | scene | figure | before | now |", "|---|---|---|---|---|"]
    for scene, sizes in now.items():
        for hosts, figures in sizes.items():
            for figure, value in figures.items():
                old = former.get(scene, {}).get(hosts, {}).get(figure)
                cells = (f"{int(hosts):,}", scene, figure, _text(old), _text(value))
                lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _text(value: float | None) -> str:
    if value is None:
        return ""
    return "not within 30 min" if value == float("inf") else f"{value:,.3g}"
