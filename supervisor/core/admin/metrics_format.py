"""Which format of the metrics a scraper accepts, by the Accept header of its request.

There are two: Prometheus' text and OpenMetrics. Whatever else is asked for gets the text, because
a header that cannot be read is no reason to leave a scraper without figures.
"""

from __future__ import annotations

from collections.abc import Mapping

OPENMETRICS = "application/openmetrics-text"

_TEXT = ("text/plain", "text/*", "*/*")


def accepts_openmetrics(accept: str) -> bool:
    """Whether OpenMetrics 1.0 is asked for, at least as much as text is (RFC 9110, 12.5.1)."""
    openmetrics = text = 0.0
    for item in accept.lower().split(","):
        media_type, *parameters = map(str.strip, item.split(";"))
        given = {
            name.strip(): value.strip().strip('"')
            for name, _, value in (each.partition("=") for each in parameters)
        }
        if media_type == OPENMETRICS and given.get("version", "1.0.0") == "1.0.0":
            openmetrics = max(openmetrics, _quality(given))
        elif media_type in _TEXT:
            text = max(text, _quality(given))
    return openmetrics > 0 and openmetrics >= text


def _quality(parameters: Mapping[str, str]) -> float:
    """The weight that a scraper gives to a format; one that cannot be read is none."""
    try:
        weight = float(parameters.get("q", "1"))
    except ValueError:
        return 0.0
    return weight if 0 <= weight <= 1 else 0.0
