"""What was probably meant: the nearest of the known names, or the value without its quotes."""

from __future__ import annotations

from collections.abc import Iterable

WITHOUT_QUOTES = "expected it without the quotes, which are a part of the value here"
"""What is said of a value that cannot be used with the quotes around it."""

MAX_EDITS = 2
"""Letters that may be wrong, missing, extra or swapped with their neighbour."""


def is_quoted(text: str) -> bool:
    """Whether quotes were left around a value. A shell takes them away; ``docker --env-file`` and
    lists of arguments do not."""
    bare = text.strip()
    return len(bare) > 1 and bare[0] == bare[-1] and bare[0] in "\"'"


def nearest(word: str, known: Iterable[str]) -> str:
    """The known name that differs from ``word`` in the fewest letters, or "" if none is near.

    A short name is near only if it differs in one letter: two edits turn any three-letter word
    into another.
    """
    best, best_edits = "", MAX_EDITS + 1
    for name in known:
        allowed = min(MAX_EDITS, max(len(name) // 4, 1), best_edits - 1)
        if abs(len(name) - len(word)) <= allowed and (edits := _edits(word, name)) <= allowed:
            best, best_edits = name, edits
    return best


def _edits(a: str, b: str) -> int:
    """The optimal string alignment distance: edits of one letter, and swaps of neighbours."""
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        before, previous, row = row, before, [i]
        for j, right in enumerate(b, 1):
            edits = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (left != right))
            if i > 1 and j > 1 and left == b[j - 2] and a[i - 2] == right:
                edits = min(edits, previous[j - 2] + 1)
            row.append(edits)
    return row[-1]
