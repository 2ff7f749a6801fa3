"""What holds for every test."""

from __future__ import annotations

import signal

import pytest
from hypothesis import HealthCheck, settings

# Machines are shared and slow at times: an example's duration says nothing about the code.
settings.register_profile("gateway", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("gateway")


# A shell that starts the tests in the background has them ignore SIGINT, and the programs that they
# start would inherit that: a Ctrl-C that a test sends would do nothing.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a module in one process where they share what is expensive to make."""
    for item in items:
        if marker := item.get_closest_marker("together"):
            name = marker.args[0] if marker.args else item.nodeid.partition("::")[0]
            item.add_marker(pytest.mark.xdist_group(name))
