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
                # Before, there were no flags for it.
                old = former.get(scene.partition(", --")[0], {}).get(hosts, {})
                before = _text(old[figure]) if figure in old else "not measured"
                cells = (f"{int(hosts):,}", scene, figure, before, _text(value))
                lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _text(value: float | None) -> str:
    """None is what did not happen before the scene was over."""
    if value is None:
        return "not within half an hour"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
