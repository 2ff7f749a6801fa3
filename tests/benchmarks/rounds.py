"""The order of things: measure by measure, round by round, the subjects in turn.

Interleaving is what makes the ratios worth something: a machine that gets slower for a minute
slows everybody. The order of the subjects rotates from round to round.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tests.benchmarks.measures import Measure, Setting
from tests.benchmarks.processes import BenchmarkError
from tests.benchmarks.results import OURS, VARIANTS, Results
from tests.benchmarks.subjects import Subject


@dataclass(frozen=True, slots=True)
class Turn:
    """One round of one measure on one subject."""

    measure: Measure
    subject: Subject
    number: int


def plan(
    measures: Sequence[Measure],
    own_measures: Sequence[Measure],
    subjects: Sequence[Subject],
    rounds: int,
) -> list[Turn]:
    """All turns in order."""
    return [
        Turn(measure, subject, number)
        for measure in (*measures, *own_measures)
        for number in range(rounds)
        for subject in _rotate(_who(measure, own_measures, subjects), number)
    ]


def take_turns(
    turns: Sequence[Turn], setting: Setting, results: Results, say: Callable[[str], None]
) -> None:
    """Take all turns; one that fails is noted and the others go on."""
    began_at = time.monotonic()
    for index, turn in enumerate(turns):
        label = f"{turn.measure.title}, {turn.subject.name}, round {turn.number + 1}"
        try:
            sample = turn.measure.take(turn.subject, setting)
        except BenchmarkError as error:
            results.failures.append(f"{label}: {error}")
            outcome = f"FAILED: {error}"
        else:
            results.add(turn.measure.key, turn.subject.name, sample)
            outcome = "  ".join(
                f"{sample[m.key]:,.{m.decimals}f} {m.title}" for m in turn.measure.metrics[:4]
            )
        left_s = (time.monotonic() - began_at) / (index + 1) * (len(turns) - index - 1)
        say(f"[{index + 1}/{len(turns)}, {left_s / 60:.0f} min left] {label}: {outcome}")


def _who(
    measure: Measure, own_measures: Sequence[Measure], subjects: Sequence[Subject]
) -> list[Subject]:
    alone = any(measure is own for own in own_measures)
    if not alone:
        return list(subjects)
    variants = (OURS,) if measure.in_process else VARIANTS
    return [subject for subject in subjects if subject.name in variants]


def _rotate(subjects: Sequence[Subject], by: int) -> Iterator[Subject]:
    start = by % len(subjects) if subjects else 0
    yield from subjects[start:]
    yield from subjects[:start]
