"""The page of promises: every test that it names exists, and every promise has its figures."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.generate import DOCS, ROOT
from tests.mutants import MUTANTS
from tests.unit.test_figures import FIGURES

PAGE = DOCS / "promises.md"
PROMISES = ["promise", "held by", "cases", "last run"]
BUGS = ["bug", "found by", "seed or input", "held by"]
MISTAKES = ["mistake", "noticed by"]


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table of the page, by the headings of its columns."""

    columns: tuple[str, ...]
    cells: tuple[str, ...]

    def __getitem__(self, column: str) -> str:
        return self.cells[self.columns.index(column)]


def read_rows() -> Iterator[Row]:
    """Every row of every table, without the headings."""
    columns: tuple[str, ...] = ()
    for line in PAGE.read_text().splitlines():
        if not line.startswith("|"):
            columns = ()
            continue
        cells = tuple(cell.strip() for cell in line.strip("|").split(" | "))
        if not columns:
            columns = cells
        elif not set(line) <= set("|-: "):
            yield Row(columns, cells)


def rows_of(columns: list[str]) -> list[Row]:
    return [row for row in read_rows() if list(row.columns) == columns]


@cache
def read_tests(path: Path) -> frozenset[str]:
    """The names of the test functions of a module."""
    return frozenset(
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


def is_test(name: str) -> bool:
    """Whether ``unit/test_x.py::test_y`` is a test of ours."""
    path, _, function = name.partition("::")
    module = ROOT / "tests" / path
    return module.is_file() and function in read_tests(module)


@pytest.mark.parametrize("columns", [PROMISES, BUGS], ids=["promises", "bugs"])
def test_every_test_that_is_named_exists(columns: list[str]) -> None:
    """A promise or a bug without a test, or with one that was renamed, is noticed."""
    rows = rows_of(columns)
    assert rows
    for row in rows:
        named = re.findall(r"`([^`]+)`", row["held by"])
        assert named, f"{row.cells[0]}: expected a test in the column 'held by'"
        assert [name for name in named if not is_test(name)] == [], row.cells[0]


def test_every_promise_has_its_count_and_its_command() -> None:
    """How often it was tried is a number, and the command that tries it is one of ours."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for row in rows_of(PROMISES):
        assert re.fullmatch(r"[1-9]\d{0,2}(,\d{3})*", row["cases"]), row.cells
        command = re.fullmatch(r"`make ([a-z-]+)[^`]*`", row["last run"])
        assert command, row.cells
        assert command[1] in targets, row.cells


def test_the_figures_of_the_pages_are_counted() -> None:
    """One more of them is one more case."""
    (row,) = (row for row in rows_of(PROMISES) if "unit/test_figures.py" in row["held by"])
    assert row["cases"] == str(len(FIGURES))


def test_no_promise_is_listed_twice() -> None:
    """One row for each promise, one for each bug."""
    for columns in (PROMISES, BUGS):
        first = [row.cells[0] for row in rows_of(columns)]
        assert [each for each in first if first.count(each) > 1] == []


def test_every_table_has_known_columns() -> None:
    """A table with other headings would not be looked at by the tests above."""
    assert {row.columns for row in read_rows()} <= set(map(tuple, (PROMISES, BUGS, MISTAKES)))


def test_every_planted_mistake_is_on_the_page() -> None:
    """Under the name that it has in ``tests/mutants.py``, with a test that noticed it."""
    rows = rows_of(MISTAKES)
    assert [row["mistake"] for row in rows] == [mutant.name for mutant in MUTANTS]
    for row in rows:
        path, _, name = row["noticed by"].strip("`").partition("::")
        assert name.partition("::")[0] in (ROOT / "tests" / path).read_text(), row.cells
