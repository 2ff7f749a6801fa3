"""What holds for every test."""

from __future__ import annotations

import contextlib
import os
import signal
from collections import defaultdict
from collections.abc import Iterator

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


ANSWER_S = 60.0
"""How long a test waits for the admin address, where a command gives up after seconds."""


@pytest.fixture(autouse=True, scope="session")
def _patient_questions() -> Iterator[None]:
    """A gateway on a busy machine may get no CPU for as long as a command waits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("supervisor.cli.admin_client.TIMEOUT_S", ANSWER_S)
        yield


PRIORITY = -10


@pytest.fixture
def priority() -> Iterator[None]:
    """For tests whose own threads must get the CPU at once, whatever else the machine does.

    A thread inherits its priority (setpriority(2)); only root may raise it.
    """
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
    yield
    os.setpriority(os.PRIO_PROCESS, 0, usual)


UNIT_TESTS = "tests/unit/"

UNIT_S, SLOW_UNIT_S, PROCESS_S, SLOW_PROCESS_S = 0.02, 0.5, 2.0, 15.0
"""How long a test takes, roughly: a unit test or one with real processes, a slow one or not. One
that takes much longer says so: ``@pytest.mark.slow(seconds=70)``."""


@pytest.hookimpl(tryfirst=True)  # markers choose what is run
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the modules that take longest, so that none of them is left alone at the end.

    Each module is run by one process, in the order of this list.
    """
    seconds: defaultdict[str, float] = defaultdict(float)
    for item in items:
        if module_of(item).startswith(UNIT_TESTS):
            item.add_marker("unit")
        seconds[module_of(item)] += estimate(item)
    items.sort(key=lambda item: -seconds[module_of(item)])


def estimate(item: pytest.Item) -> float:
    """Seconds that the test takes, roughly."""
    unit, slow = item.get_closest_marker("unit"), item.get_closest_marker("slow")
    if slow is None:
        return UNIT_S if unit else PROCESS_S
    return float(slow.kwargs.get("seconds", SLOW_UNIT_S if unit else SLOW_PROCESS_S))


def module_of(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]
