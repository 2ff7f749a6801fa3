"""The curves of a fleet as one SVG, before and now. No I/O."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

WIDTH, HEIGHT, MARGIN = 440, 150, 44
COLUMNS = 2
BUCKETS = 60
"""Points of a curve: each is the mean of its part of the scene."""

PANELS = (
    ("Idle: probes of all five members per second", "idle", "probes"),
    ("In use: probes of all five members per second", "busy", "probes"),
    ("Idle: DNS questions per second", "idle", "queries"),
    ("A member vanishes: dials per second", "a member vanishes", "dials"),
    ("A member returns: its sessions / mean", "a member returns, --max-session-age=10m", "share"),
)
"""Title, scene and curve; the scenes with a flag are drawn without it for before."""

STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #24292f }
  .title { font-weight: 600; font-size: 13px }
  .before { stroke: #a8b3c1; fill: none; stroke-width: 1.6 }
  .now { stroke: #2563eb; fill: none; stroke-width: 2 }
  .axis { stroke: #a8b3c1; stroke-width: .6 }
  .ground { fill: #ffffff }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .ground { fill: #0d1117 } .now { stroke: #5b8def }
    .before, .axis { stroke: #57606a }
  }
"""


def draw_figure(results: dict[str, Any]) -> str:
    """1,000 hosts: a panel per curve, grey before, blue now."""
    rows = math.ceil(len(PANELS) / COLUMNS)
    whole = (COLUMNS * (WIDTH + MARGIN) + MARGIN, rows * (HEIGHT + 2 * MARGIN) + MARGIN)
    body = []
    for index, (title, scene, curve) in enumerate(PANELS):
        left = MARGIN + index % COLUMNS * (WIDTH + MARGIN)
        top = MARGIN + index // COLUMNS * (HEIGHT + 2 * MARGIN)
        former = results["before"]["curves"][scene.partition(", --")[0]][curve]
        body.append(_draw_panel(title, former, results["now"]["curves"][scene][curve], left, top))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{whole[0]}" height="{whole[1]}"'
        f' viewBox="0 0 {whole[0]} {whole[1]}" role="img">\n'
        "<title>1,000 simulated hosts in front of five members, before and now</title>\n"
        f"<style>{STYLE}</style>\n"
        f'<rect class="ground" width="{whole[0]}" height="{whole[1]}"/>\n'
        + "\n".join(body)
        + "\n</svg>\n"
    )


def _draw_panel(
    title: str, former: Sequence[float], now: Sequence[float], left: int, top: int
) -> str:
    curves = {"before": _buckets(former), "now": _buckets(now)}
    most = max(max(each) for each in curves.values()) or 1.0
    seconds = len(now)
    lines = [
        f'<text class="title" x="{left}" y="{top - 14}">{title}</text>',
        (
            f'<line class="axis" x1="{left}" x2="{left + WIDTH}" y1="{top + HEIGHT}"'
            f' y2="{top + HEIGHT}"/>'
        ),
        f'<text x="{left}" y="{top + HEIGHT + 16}">0 s</text>',
        f'<text x="{left + WIDTH}" y="{top + HEIGHT + 16}" text-anchor="end">{seconds} s</text>',
        f'<text x="{left + WIDTH}" y="{top - 14}" text-anchor="end">up to {most:,.4g}</text>',
    ]
    for kind, points in curves.items():
        path = " ".join(
            f"{left + WIDTH * index / (len(points) - 1):.1f},"
            f"{top + HEIGHT * (1 - value / most):.1f}"
            for index, value in enumerate(points)
        )
        lines.append(f'<polyline class="{kind}" points="{path}"/>')
    return "\n".join(lines)


def _buckets(curve: Sequence[float]) -> list[float]:
    size = max(1, len(curve) // BUCKETS)
    return [
        sum(curve[at : at + size]) / len(curve[at : at + size]) for at in range(0, len(curve), size)
    ]
