"""The page that describes the protocol, read by the decoder of the protocol."""

from __future__ import annotations

import re
import typing

import pytest

from gateway.core import counters, messages, wire
from gateway.core.endpoint import Endpoint, EndpointState
from tests.generate import DOCS

PAGE = (DOCS / "protocol.md").read_text()
DOWN = {kind.__name__ for kind in typing.get_args(messages.Down)}
UP = {kind.__name__ for kind in typing.get_args(messages.Up)}


def read_examples(part: str) -> dict[str, messages.Down | messages.Up]:
    """Every JSON example of a part of the page, decoded, by the heading it stands under."""
    body = PAGE.partition(f"\n## {part}")[2].partition("\n## ")[0]
    examples: dict[str, messages.Down | messages.Up] = {}
    for section in body.split("\n### ")[1:]:
        heading = section.partition("\n")[0]
        blocks = re.findall(r"```json\n(.*?)```", section, re.DOTALL)
        assert len(blocks) == 1, f"{heading} needs exactly one example"
        # On the wire a message is one line; the page may break it.
        examples[heading] = wire.decode(blocks[0].replace("\n", " ").encode())
    return examples


@pytest.mark.parametrize(("part", "kinds"), [("Down", DOWN), ("Up", UP)])
def test_every_message_has_an_example_in_its_direction(part: str, kinds: set[str]) -> None:
    """The page shows each message once, under the direction in which it travels."""
    assert read_examples(part).keys() == kinds


@pytest.mark.parametrize("part", ["Down", "Up"])
def test_each_example_is_the_message_of_its_heading(part: str) -> None:
    """The strict decoder accepts every example as what its heading says."""
    for heading, message in read_examples(part).items():
        assert type(message).__name__ == heading


@pytest.mark.parametrize("part", ["Down", "Up"])
def test_each_example_survives_a_round_trip(part: str) -> None:
    """What the page shows is what the encoder can write."""
    for message in read_examples(part).values():
        assert wire.decode(wire.encode(message).rstrip(b"\n")) == message


def test_the_histograms_of_the_example_have_the_gateways_buckets() -> None:
    """The example of a report has one count per bound and one above all of them."""
    report = read_examples("Up")["Report"]
    assert isinstance(report, messages.Report)
    assert len(report.session_buckets) == len(counters.SESSION_BOUNDS_S) + 1
    for endpoint in report.endpoints.values():
        assert len(endpoint.dial_buckets) == len(counters.DIAL_BOUNDS_S) + 1


def test_the_example_of_a_report_uses_known_words() -> None:
    """Ends, refusals and dial results of the example are words that the gateway has."""
    report = read_examples("Up")["Report"]
    assert isinstance(report, messages.Report)
    assert {*report.ended, *report.refused} <= {end.value for end in counters.End}
    for endpoint in report.endpoints.values():
        assert endpoint.dials.keys() <= {result.value for result in counters.DialResult}


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({}, False),
        ({"state": EndpointState.INACTIVE}, False),
        ({"ramp": 50}, False),
        ({"state": EndpointState.DRAINING}, True),
        ({"tier": 1}, True),
    ],
)
def test_a_snapshot_without_its_health_is_what_a_reload_may_change(
    change: dict[str, typing.Any], differs: bool
) -> None:
    """Which endpoints may be used, in which rank, and the settings."""
    before = messages.Snapshot(1, (Endpoint("a:1", ("10.0.0.1",), 1),))
    after = messages.Snapshot(2, (Endpoint("a:1", ("10.0.0.1",), 1, **change),))
    assert (before.without_health() != after.without_health()) is differs
    other = messages.Snapshot(2, before.endpoints, messages.Settings(max_sessions=1))
    assert before.without_health() != other.without_health()
