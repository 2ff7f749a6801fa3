"""``python -m tests.fleet [--before]``: run the scenes, keep the results, draw the figure.

The results are in ``docs/fleet.json``: those of before the gateway knew of fleets, which
``--before`` replaces, and those of now. The figure and the tables of ``docs/fleet.md`` are drawn
from it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tests.fleet.figure import draw_figure
from tests.fleet.scenes import every_scene

DOCS = Path(__file__).resolve().parents[2] / "docs"
SIZES = (1_000, 10_000)
CURVES_OF = SIZES[0]
"""The figure shows this size; curves of the others are not kept."""


def main(when: str) -> None:
    file = DOCS / "fleet.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    figures: dict[str, dict[str, dict[str, float | None]]] = {}
    curves: dict[str, dict[str, list[float]]] = {}
    for hosts in SIZES:
        for name, scene in every_scene(hosts):
            outcome = scene()
            kept = {key: _finite(value) for key, value in outcome.figures.items()}
            figures.setdefault(name, {})[str(hosts)] = kept
            if hosts == CURVES_OF:
                curves[name] = outcome.curves
            for figure, value in outcome.figures.items():
                print(f"{hosts} hosts, {name}: {figure}: {value:.2f}", flush=True)
    results[when] = {"figures": figures, "curves": curves}
    file.write_text(json.dumps(results) + "\n")
    if {"before", "now"} <= results.keys():
        (DOCS / "fleet.svg").write_text(draw_figure(results))


def _finite(value: float) -> float | None:
    """JSON has no infinity: None is what did not happen."""
    return round(value, 4) if value < float("inf") else None


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.fleet", description=__doc__)
    parser.add_argument("--before", action="store_true", help="keep them as those of before")
    main("before" if parser.parse_args().before else "now")
