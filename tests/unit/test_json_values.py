"""What a field can hold of what JSON can say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from supervisor.core.json_values import fits, kinds_of


@dataclass
class Inner:
    number: int


@dataclass
class Outer:
    name: str
    number: int = 0
    seconds: float = 0.0
    flag: bool = False
    why: str | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    nested: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    texts: tuple[str, ...] = ()
    pairs: Sequence[tuple[str, str]] = ()
    inner: Inner | None = None


@pytest.mark.parametrize(
    ("key", "good", "bad"),
    [
        ("name", ["a"], [1, None]),
        ("number", [0, -3], [True, 1.5, "1", 10**30, None]),
        ("seconds", [0, 1.5], [False, "1", math.nan, math.inf, 10**400]),
        ("flag", [True], [1, None]),
        ("why", [None, "a"], [1]),
        ("counts", [{}, {"a": 1}], [{"a": "b"}, [], 1]),
        ("nested", [{"a": {"b": 1}}], [{"a": 1}]),
        ("texts", [[], ["a"], ("a",)], [[1], "a"]),
        ("pairs", [[["a", "b"]]], [["a"], [[1, 2]]]),
        ("inner", [None, {}], [1, []]),
    ],
)
def test_a_field_holds_what_its_type_says(key: str, good: list[Any], bad: list[Any]) -> None:
    kind = kinds_of(Outer)[key]
    assert [fits(value, kind) for value in good] == [True] * len(good)
    assert [fits(value, kind) for value in bad] == [False] * len(bad)
