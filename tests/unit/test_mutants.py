"""The planted mistakes: each has a place in the code as it is now."""

from __future__ import annotations

import ast

import pytest

from tests.generate import ROOT
from tests.mutants import MUTANTS, Mutant, mutate


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_its_place_is_found_and_the_mistake_is_python(mutant: Mutant) -> None:
    """The text that it replaces is there once, and every test file that it names exists."""
    text = (ROOT / mutant.path).read_text()
    changed = mutate(text, mutant)
    assert changed != text
    ast.parse(changed)
    files = [ROOT / name.partition("::")[0] for name in mutant.tests]
    assert [file for file in files if not file.is_file()] == []


def test_a_place_that_is_gone_is_an_error() -> None:
    """Code that was changed is noticed, and not silently left unbroken."""
    with pytest.raises(LookupError, match="has to be named anew"):
        mutate("nothing of it", MUTANTS[0])


def test_there_are_twenty_of_them() -> None:
    """In the relay, the dial, the ingress, the fleet and the health machine."""
    assert len(MUTANTS) >= 20
    assert len({mutant.path for mutant in MUTANTS}) >= 6
