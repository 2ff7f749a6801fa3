"""What is left to ``make stress``: further cases of what ``make test`` shows already.

A module that imports from here has more to do there; the Makefile finds it by that.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

LONG = bool(os.environ.get("GATEWAY_TESTS_LONG"))
"""This is ``make stress``, or something like it."""

only_long = pytest.mark.skipif(not LONG, reason="`make stress` runs it")


def long(*values: Any) -> Any:
    """A set of parameters that only ``make stress`` tries."""
    return pytest.param(*values, marks=only_long)
