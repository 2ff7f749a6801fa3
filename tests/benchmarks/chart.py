"""Results as one SVG: a panel per measure, a bar per subject, shorter is better. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from tests.benchmarks.measures import Measure, Metric
from tests.benchmarks.results import OURS, Figure, Results

_PANEL_WIDTH, _BAR_HEIGHT, _GAP = 440, 18, 8
_LABEL_WIDTH, _VALUE_WIDTH, _MARGIN = 96, 64, 16
_TITLE_HEIGHT = 30
_COLUMNS = 2
_STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #24292f }
  .title { font-weight: 600; font-size: 13px }
  .ours { font-weight: 600 }
  .bar { fill: #a8b3c1 } .bar.ours { fill: #2563eb }
  .range { stroke: #24292f; stroke-width: 1.2 }
  .ground { fill: #ffffff }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .bar { fill: #57606a } .bar.ours { fill: #5b8def }
    .range { stroke: #e6edf3 } .ground { fill: #0d1117 }
  }
"""


def draw_chart(results: Results, measures: Sequence[Measure]) -> str:
    """The chart of all metrics that are marked for it and were measured."""
    panels = []
    for measure in measures:
        for metric in (m for m in measure.metrics if m.chart):
            bars = _bars(results, measure, metric)
            if bars:
                panels.append((f"{measure.title} ({metric.title})", metric.decimals, bars))
    tallest = max((len(bars) for _, _, bars in panels), default=0)
    height = _TITLE_HEIGHT + tallest * (_BAR_HEIGHT + _GAP) + _MARGIN
    rows = -(-len(panels) // _COLUMNS)
    whole = (_COLUMNS * _PANEL_WIDTH, rows * height + _MARGIN)
    body = [
        _draw_panel(panel, index % _COLUMNS * _PANEL_WIDTH, index // _COLUMNS * height)
        for index, panel in enumerate(panels)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{whole[0]}" height="{whole[1]}"'
        f' viewBox="0 0 {whole[0]} {whole[1]}" role="img">\n'
        "<title>Cost per unit of work: etcd-gateway and its peers</title>\n"
        f"<style>{_STYLE}</style>\n"
        f'<rect class="ground" width="{whole[0]}" height="{whole[1]}"/>\n'
        + "\n".join(body)
        + "\n</svg>\n"
    )


def _bars(results: Results, measure: Measure, metric: Metric) -> list[tuple[str, Figure]]:
    found = [
        (subject, figure)
        for subject in results.subjects(measure.key)
        if (figure := results.figure(measure.key, subject, metric.key))
    ]
    return sorted(found, key=lambda item: item[1].median)


def _draw_panel(panel: tuple[str, int, list[tuple[str, Figure]]], left: int, top: int) -> str:
    title, decimals, bars = panel
    most = max(figure.high for _, figure in bars) or 1.0
    room = _PANEL_WIDTH - _LABEL_WIDTH - _VALUE_WIDTH - 2 * _MARGIN
    x = left + _MARGIN + _LABEL_WIDTH
    lines = [f'<text class="title" x="{left + _MARGIN}" y="{top + 24}">{escape(title)}</text>']
    for index, (subject, figure) in enumerate(bars):
        y = top + _TITLE_HEIGHT + _GAP + index * (_BAR_HEIGHT + _GAP)
        middle, baseline = y + _BAR_HEIGHT / 2, y + 13
        kind = " ours" if subject == OURS else ""
        low, median, high = (room * v / most for v in (figure.low, figure.median, figure.high))
        label = f'<text class="label{kind}" x="{x - 8}" y="{baseline}" text-anchor="end">'
        lines.append(f"{label}{escape(subject)}</text>")
        size = f'width="{median:.1f}" height="{_BAR_HEIGHT}"'
        lines.append(f'<rect class="bar{kind}" x="{x}" y="{y}" {size} rx="2"/>')
        span = f'x1="{x + low:.1f}" x2="{x + high:.1f}" y1="{middle}" y2="{middle}"'
        lines.append(f'<line class="range" {span}/>')
        value = f'<text class="value{kind}" x="{x + high + 8:.1f}" y="{baseline}">'
        lines.append(f"{value}{figure.median:,.{decimals}f}</text>")
    return "\n".join(lines)
