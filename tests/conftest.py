"""What holds for every test."""

from __future__ import annotations

import os
import signal
from collections import Counter

import pytest
from hypothesis import HealthCheck, settings

# Machines are shared and slow at times: an example's duration says nothing about the code.
PROFILE = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("all", PROFILE)
settings.register_profile("few", PROFILE, max_examples=20)
settings.load_profile(os.environ.get("GATEWAY_TESTS_EXAMPLES", "all"))


# A shell that starts the tests in the background has them ignore SIGINT, and the programs that they
# start would inherit that: a Ctrl-C that a test sends would do nothing.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


UNIT_TESTS = "tests/unit/"

SLOW_WEIGHT = 30
"""A slow test takes about as long as so many others."""


@pytest.hookimpl(tryfirst=True)  # markers choose what is run
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the modules that take longest, so that none of them is left alone at the end.

    Each module is run by one process, in the order of this list.
    """
    weights: Counter[str] = Counter()
    for item in items:
        if module_of(item).startswith(UNIT_TESTS):
            item.add_marker("unit")
        slow = item.get_closest_marker("slow") is not None
        weights[module_of(item)] += SLOW_WEIGHT if slow else 1
    items.sort(key=lambda item: -weights[module_of(item)])


def module_of(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]
