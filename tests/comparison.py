"""The table of the README against the peers, made from ``docs/performance.json``."""

from __future__ import annotations

import json
from pathlib import Path

from tests.benchmarks.results import Results

FIGURES = Path(__file__).resolve().parent.parent / "docs" / "performance.json"
SUBJECTS = ("etcd-gateway", "etcd gateway", "HAProxy", "nginx stream", "Envoy")

ROWS = (
    ("CPU per round trip, 64 sessions", "requests-64", "cpu_us", "{:.1f} µs"),
    ("CPU per connection", "connections", "cpu_us", "{:.0f} µs"),
    ("CPU per gigabyte, one stream", "bulk-1", "cpu_s_per_gb", "{:.2f} s"),
    ("memory per idle session", "idle-sessions", "bytes_per_session", "{:.0f} B"),
    ("memory of the idle proxy", "idle-gateway", "pss_mb", "{:.0f} MB"),
    ("start, exec to first byte", "start", "ms", "{:.0f} ms"),
)


def draw() -> str:
    """The median of each measure by subject; the page of performance has the whole figures."""
    results = Results.from_json(json.loads(FIGURES.read_text()))
    lines = ["| | " + " | ".join(SUBJECTS) + " |", "|---|" + "---:|" * len(SUBJECTS)]
    for title, measure, metric, form in ROWS:
        figures = [results.figure(measure, subject, metric) for subject in SUBJECTS]
        cells = [form.format(figure.median) if figure else "" for figure in figures]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
