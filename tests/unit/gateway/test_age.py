"""How old a session may become."""

from __future__ import annotations

from gateway.core.age import OLDEST, YOUNGEST, limit_s


def test_ages_are_spread_by_a_tenth() -> None:
    """Sessions that began together end at all times between nine and eleven tenths."""
    limits = [limit_s(100.0, 5000.0 + n * 1e-4) for n in range(2000)]
    assert min(limits) >= YOUNGEST * 100.0
    assert max(limits) <= OLDEST * 100.0
    assert all(
        sum(low <= each < low + 4 for each in limits) > 200 for low in (90, 94, 98, 102, 106)
    )


def test_the_age_of_a_session_does_not_change() -> None:
    """The same start has the same age."""
    assert limit_s(60.0, 1234.567891) == limit_s(60.0, 1234.567891)
