"""Every condition of a module is found, and is replaced alone."""

from __future__ import annotations

from tests.every_condition import TESTS, changes
from tests.generate import ROOT

SOURCE = """\
if TYPE_CHECKING:
    import os
def f(x):
    if x > 1 and (
        x < 9
    ):
        return [each for each in x if each] if x else None
    while True:
        break
"""


def test_each_condition_is_always_true_or_always_false() -> None:
    found = [(each.line, each.condition.split(), each.value) for each in changes("m.py", SOURCE)]
    assert found == [
        (4, ["x", ">", "1", "and", "(", "x", "<", "9", ")"], "True"),
        (4, ["x", ">", "1", "and", "(", "x", "<", "9", ")"], "False"),
        (7, ["each"], "True"),
        (7, ["each"], "False"),
        (7, ["x"], "True"),
        (7, ["x"], "False"),
        (8, ["True"], "False"),
    ]


def test_only_the_condition_is_replaced() -> None:
    first, *_, last = changes("m.py", SOURCE)
    assert "    if True:\n        return [each" in first.apply(SOURCE)
    assert last.apply(SOURCE) == SOURCE.replace("while True", "while False")


def test_the_modules_and_their_tests_are_there() -> None:
    for module, tests in TESTS.items():
        assert (ROOT / module).is_file()
        assert [each for each in tests if not (ROOT / each).exists()] == []
