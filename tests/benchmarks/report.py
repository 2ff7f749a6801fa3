"""Results as Markdown: for the terminal and for the documentation. No I/O."""

from __future__ import annotations

from collections.abc import Sequence

from tests.benchmarks.measures import Measure
from tests.benchmarks.results import BEFORE, FLOOR, OURS, Outcome, Results


def write_report(
    results: Results,
    measures: Sequence[Measure],
    own_measures: Sequence[Measure],
    outcomes: Sequence[Outcome],
) -> str:
    """Everything: machine, one table per measure, our own figures, the goals, the failures."""
    parts = [_describe(results)]
    parts += [_compare(results, m) for m in measures if results.subjects(m.key)]
    parts += [_list_own(results, m) for m in own_measures if results.subjects(m.key)]
    if outcomes := list(outcomes):
        parts.append(_list_goals(outcomes))
    if results.failures:
        parts.append("### What failed\n\n" + "\n".join(f"- {line}" for line in results.failures))
    return "\n\n".join(parts) + "\n"


def _describe(results: Results) -> str:
    facts = [f"- {name}: {value}" for name, value in results.machine.items()]
    facts.append("- programs: " + ", ".join(results.versions.values()))
    return "### The run\n\n" + "\n".join(facts)


def _compare(results: Results, measure: Measure) -> str:
    """A row per subject, best first by the first metric, each with its ratio to the others."""
    key, primary = measure.key, measure.metrics[0]
    medians = {
        subject: figure.median
        for subject in results.subjects(key)
        if (figure := results.figure(key, subject, primary.key))
    }
    best = results.best_peer(key, primary.key)
    head = [
        "",
        *(m.title for m in measure.metrics),
        "lowest to highest",
        "of the best peer",
        "of the floor",
    ]
    rows = [head, ["---", *["---:"] * (len(head) - 1)]]
    for subject in sorted(medians, key=medians.__getitem__):
        cells = [f"**{subject}**" if subject == OURS else subject]
        for metric in measure.metrics:
            figure = results.figure(key, subject, metric.key)
            cells.append(f"{figure.median:,.{metric.decimals}f}" if figure else "")
        figure = results.figure(key, subject, primary.key)
        if figure:
            span = f"{figure.low:,.{primary.decimals}f} to {figure.high:,.{primary.decimals}f}"
            cells.append(span)
        floor = medians.get(FLOOR)
        cells.append(f"{medians[subject] / best[1]:.2f}" if best and best[1] else "")
        cells.append(f"{medians[subject] / floor:.2f}" if floor else "")
        rows.append(cells)
    return f"### {measure.title}\n\n" + _table(rows)


def _list_own(results: Results, measure: Measure) -> str:
    former = BEFORE in results.subjects(measure.key)
    rows = [["", "median", "lowest to highest"], ["---", "---:", "---:"]]
    if former:
        rows[0].append("before")
        rows[1].append("---:")
    for metric in measure.metrics:
        figure = results.figure(measure.key, OURS, metric.key)
        if figure:
            form = f",.{metric.decimals}f"
            span = f"{figure.low:{form}} to {figure.high:{form}}"
            rows.append([metric.title, f"{figure.median:{form}}", span])
            if former:
                earlier = results.figure(measure.key, BEFORE, metric.key)
                rows[-1].append(f"{earlier.median:{form}}" if earlier else "")
    return f"### {measure.title}\n\n" + _table(rows)


def _list_goals(outcomes: Sequence[Outcome]) -> str:
    whom = {"": "value", "c": "of HAProxy and nginx, the better", "best": "of the best peer"}
    rows = [["goal", "at most", "", "reached", ""], ["---", "---:", "---", "---:", "---"]]
    with_compiled = any(outcome.compiled is not None for outcome in outcomes)
    if with_compiled:
        rows[0] += ["compiled", ""]
        rows[1] += ["---:", "---"]
    for outcome in outcomes:
        goal = outcome.goal
        against = whom.get(goal.against, f"of {goal.against.replace('cpu_us_', 'that with ')}")
        row = [goal.text, f"{goal.limit:,.2f}", against]
        for reached in (outcome.reached, outcome.compiled)[: 1 + with_compiled]:
            if reached is None:
                row += ["not measured", ""]
            else:
                row += [f"{reached:,.2f}", "yes" if outcome.holds(reached) else "**no**"]
        rows.append(row)
    return "### Goals\n\n" + _table(rows)


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, so that it reads well in a terminal too."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    numeric = [rows[1][i].endswith(":") for i in range(len(widths))]
    lines = []
    for row in rows:
        cells = []
        for cell, width, right in zip(row, widths, numeric, strict=True):
            if set(cell) <= {"-", ":"} and cell:
                cells.append("-" * (width - right) + ":" * right)
            else:
                cells.append(cell.rjust(width) if right else cell.ljust(width))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
