"""How often endpoints were looked for."""

from __future__ import annotations

from supervisor.core.discovery.endpoints import Source
from supervisor.core.discovery.tally import Tally


def test_results_are_counted_by_source() -> None:
    """Each source has its own counts, and all together are what the status says."""
    tally = Tally()
    tally.add(Source.SRV, "success")
    tally.add(Source.FLAG, "success")
    tally.add(Source.FLAG, "failure")
    assert tally.by_result() == {"success": 2, "failure": 1}
    assert tally.by_source(Source.FLAG, {"success": 7}) == {
        "flag": {"success": 1, "failure": 1},
        "srv": {"success": 1},
        "members": {"success": 7},
    }
    assert Tally().by_source(Source.SRV, None) == {"srv": {}}


def test_counts_go_on() -> None:
    """A later image goes on counting; member sync remembers its own counts."""
    before = {"srv": {"success": 3}, "members": {"success": 9}}
    tally = Tally()
    tally.restore(before, {"success": 3}, Source.SRV)
    tally.add(Source.SRV, "success")
    assert tally.by_source(Source.SRV, None) == {"srv": {"success": 4}}


def test_counts_of_an_image_that_knew_no_sources() -> None:
    """They are those of the source that it asked."""
    tally = Tally()
    tally.restore({}, {"success": 3}, Source.FLAG)
    assert tally.by_source(Source.FLAG, None) == {"flag": {"success": 3}}
