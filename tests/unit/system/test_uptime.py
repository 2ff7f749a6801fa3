"""The uptime follows no one who sets the clock."""

from __future__ import annotations

from supervisor.system.uptime import Uptime


class Clocks:
    """A wall clock that can be set, and one that counts since boot."""

    wall = 1_000_000.0
    boot = 50.0

    def start(self, started_at: float | None = None, boot_s: float | None = None) -> Uptime:
        return Uptime(started_at, boot_s, wall=lambda: self.wall, boot=lambda: self.boot)


def test_setting_the_clock_changes_nothing() -> None:
    """Forth or back, the length is that of the other clock."""
    clocks = Clocks()
    uptime = clocks.start()
    clocks.boot += 10
    for clocks.wall in (0.0, 2_000_000.0):
        assert uptime.seconds() == 10
        assert uptime.started_at == 1_000_000.0


def test_the_next_image_goes_on() -> None:
    """With what the first one read, although the wall clock was set in between."""
    clocks = Clocks()
    first = clocks.start()
    clocks.boot, clocks.wall = 60, 7.0
    second = clocks.start(first.started_at, first.started_boot_s)
    assert (second.seconds(), second.started_at) == (10, first.started_at)


def test_an_image_that_told_only_the_wall_clock_is_trusted() -> None:
    """The uptime is what the wall clock says, and never negative."""
    clocks = Clocks()
    assert clocks.start(clocks.wall - 30).seconds() == 30
    assert clocks.start(clocks.wall + 30).seconds() == 0


def test_the_real_clocks() -> None:
    """A gateway that started just now has an uptime of about nothing."""
    assert 0.0 <= Uptime().seconds() < 60.0
