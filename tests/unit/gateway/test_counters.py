"""What a worker counts."""

from __future__ import annotations

from gateway.core.counters import DialResult, EndpointCounters


def test_dials_are_counted_by_their_result() -> None:
    """A result that never came has no count."""
    counters = EndpointCounters()
    for result in (DialResult.ABANDONED, DialResult.TIMEOUT, DialResult.ABANDONED):
        counters.count_dial(result)
    assert counters.dials == {"abandoned": 2, "timeout": 1}
