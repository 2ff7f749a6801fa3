"""What this host does wrong is told while it lasts, and not for longer."""

from __future__ import annotations

from supervisor.core.health.host_failures import FORGET_S, LOG_EVERY_S, HostFailures

NO_ROUTE = "network is unreachable"


def test_it_is_told_until_the_endpoint_is_reached() -> None:
    """Of that endpoint alone."""
    failures = HostFailures()
    assert failures.error_of("a:1", 0.0) is None
    failures.failed("a:1", NO_ROUTE, 0.0)
    assert failures.error_of("a:1", 1.0) == NO_ROUTE
    assert failures.error_of("b:1", 1.0) is None
    failures.reached("b:1")
    failures.reached("a:1")
    assert failures.error_of("a:1", 1.0) is None


def test_it_is_forgotten_when_it_does_not_happen_again() -> None:
    """Else a gateway that gets no clients for it would never be ready again."""
    failures = HostFailures()
    failures.failed("a:1", NO_ROUTE, 0.0)
    assert failures.error_of("a:1", FORGET_S) is None


def test_the_log_hears_of_it_once_a_minute() -> None:
    """However many endpoints and workers there are."""
    failures = HostFailures()
    assert failures.failed("a:1", NO_ROUTE, 0.0)
    assert not failures.failed("a:1", NO_ROUTE, 1.0)
    assert not failures.failed("b:1", NO_ROUTE, LOG_EVERY_S - 0.1)
    assert failures.failed("b:1", NO_ROUTE, LOG_EVERY_S)


def test_the_log_does_not_hear_of_an_address_that_could_never_be_dialed() -> None:
    """It is no news, and takes no other line's place."""
    failures = HostFailures()
    assert not failures.failed("a:1 fd00::1", NO_ROUTE, 0.0, quiet=True)
    assert failures.error_of("a:1 fd00::1", 1.0) == NO_ROUTE
    assert failures.failed("b:1", NO_ROUTE, 1.0)
