"""The addresses of an endpoint that has several, and what they are together."""

from __future__ import annotations

from supervisor.core.discovery.endpoints import Discovered
from supervisor.core.health.addresses import (
    add_counts,
    inactive_addresses,
    joined,
    log_fields,
    places,
)
from supervisor.core.health.health_view import HealthView

A, B = "10.0.0.1", "fd00::2"
ONE = Discovered("web:1", "web", 1, (A,))
TWO = Discovered("web:1", "web", 1, (A, B), tls=True, srv=True)


def test_a_single_address_is_watched_as_the_endpoint() -> None:
    """Nothing changes for it."""
    assert places(ONE) == (ONE,)
    assert log_fields("web:1") == {"endpoint": "web:1"}


def test_each_of_several_addresses_is_watched_by_itself() -> None:
    """With all that a probe has to know of the endpoint."""
    first, second = places(TWO)
    assert (first.addresses, second.addresses) == ((A,), (B,))
    assert (first.host, first.port, first.tls, first.srv) == ("web", 1, True, True)
    assert log_fields(second.name) == {"endpoint": "web:1", "address": B}


def test_an_endpoint_is_active_while_one_address_is() -> None:
    """What is counted adds up, and the newest error names its address."""
    views = {
        A: HealthView(
            active=False,
            since=1.0,
            last_error="refused",
            last_error_at=5.0,
            probe_failures=1,
            probes={"failed": 1},
            probe_buckets=(1,),
            probe_seconds=0.5,
            transitions={"inactive": 1},
            hold_s=3.0,
            flaps=4,
        ),
        B: HealthView(
            active=True,
            since=2.0,
            last_error="timeout",
            last_error_at=4.0,
            probes={"passed": 5, "failed": 1},
            probe_failures=1,
            probe_buckets=(4, 2),
            probe_seconds=1.0,
            kept=True,
        ),
    }
    whole = joined(views, since=7.0)
    assert inactive_addresses(views) == (A,)
    assert whole.active
    assert whole.since == 7.0
    assert (whole.last_error, whole.last_error_at) == (f"{A}: refused", 5.0)
    assert whole.probe_failures == 2
    assert whole.probes == {"passed": 5, "failed": 2}
    assert whole.transitions == {"inactive": 1}
    assert (whole.probe_buckets, whole.probe_seconds) == ((5, 2), 1.5)
    assert (whole.hold_s, whole.flaps, whole.kept) == (0.0, 4, True)


def test_an_endpoint_is_inactive_if_all_addresses_are() -> None:
    """It is held for as long as all of them are."""
    views = {
        A: HealthView(active=False, since=1.0, hold_s=3.0),
        B: HealthView(active=False, since=1.0, hold_s=1.0),
    }
    whole = joined(views, since=1.0)
    assert (whole.active, whole.kept, whole.hold_s, whole.last_error) == (False, False, 1.0, None)


def test_an_endpoint_is_cut_off_if_all_its_active_addresses_are() -> None:
    """One that this host can dial is enough."""
    cut_off = HealthView(active=True, since=0.0, cut_off="no route")
    good = HealthView(active=True, since=0.0)
    down = HealthView(active=False, since=0.0)
    assert joined({A: cut_off, B: down}, since=0.0).cut_off == "no route"
    assert joined({A: cut_off, B: good}, since=0.0).cut_off is None
    assert joined({A: down, B: down}, since=0.0).cut_off is None


def test_an_address_that_was_never_reached_says_nothing_of_the_endpoint() -> None:
    """The others tell; if there is none that could, the fault is this host's."""
    never = HealthView(
        active=True, since=0.0, cut_off="no route", unreached=True, last_error="no route",
        last_error_at=9.0,
    )  # fmt: skip
    down = HealthView(active=False, since=0.0, last_error="refused", last_error_at=1.0, hold_s=2.0)
    kept = HealthView(active=True, since=0.0, kept=True)
    whole = joined({A: down, B: never}, since=0.0)
    assert (whole.active, whole.cut_off, whole.kept, whole.hold_s) == (False, None, False, 2.0)
    assert (whole.last_error, whole.last_error_at) == (f"{A}: refused", 1.0)
    whole = joined({A: kept, B: never}, since=0.0)
    assert (whole.active, whole.cut_off, whole.kept, whole.last_error) == (True, None, True, None)
    whole = joined({A: never, B: never}, since=0.0)
    assert (whole.active, whole.cut_off, whole.kept) == (True, "no route", False)


def test_seconds_of_probes_are_the_same_whoever_leaves_first() -> None:
    """What an address counted goes to the past of its endpoint, and no sum loses its last bit."""
    one, two, three = (HealthView(active=True, since=0.0, probe_seconds=n) for n in (0.1, 0.2, 0.3))
    all_of_them = joined({"a": one, "b": two, "c": three}, 0.0)
    past = add_counts(three, [two])
    assert add_counts(joined({"a": one}, 0.0), [past]).probe_seconds == all_of_them.probe_seconds
