"""The metrics page: the gateway's view as Prometheus text or OpenMetrics.

The figures are the master's own totals; prometheus-client only formats them. This module is
imported when an admin address is served, and never before, because the library takes 40 ms.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import Metric, UnknownMetricFamily
from prometheus_client.exposition import choose_encoder

from gateway.core.records import dataclass
from supervisor.admin.endpoint_metrics import BY_ENDPOINT, PREFIX, ended_by_endpoint
from supervisor.admin.metric_families import ended_without_endpoint, of_gateway
from supervisor.admin.process_metrics import of_process
from supervisor.core.admin.metrics_format import OPENMETRICS, accepts_openmetrics
from supervisor.core.admin.views import GatewayView

END_OF_OPENMETRICS = b"# EOF\n"
ENDPOINTS_PER_PART = 100
"""A part takes about ten milliseconds, and the master's loop runs between two parts."""


def render(view: GatewayView, accept: str = "") -> tuple[Iterator[bytes], str]:
    """The page in pieces and its content type; ``accept`` is the request's Accept header.

    The caller gives its loop a turn after each piece.
    """
    openmetrics = accepts_openmetrics(accept)
    # Only these two: the library takes a version from the header as it is, and fails over some.
    encode, content_type = choose_encoder(OPENMETRICS if openmetrics else "")

    def pieces() -> Iterator[bytes]:
        for part in _parts(view):
            text = encode(_renamed(part) if openmetrics else part).removesuffix(END_OF_OPENMETRICS)
            yield _without_head(text) if part.continued else text
        if openmetrics:
            yield END_OF_OPENMETRICS

    return pieces(), content_type


@dataclass(frozen=True, slots=True)
class _Part:
    """Some samples of one family; the encoder wants an object that has ``collect``."""

    family: Metric
    continued: bool = False

    def collect(self) -> Iterable[Metric]:
        return (self.family,)


def _renamed(part: _Part) -> _Part:
    """The same part for OpenMetrics, where the name of a counter's family has no ``_total``.

    ``sessions``, a gauge, and ``sessions_total``, a counter, would be one family of two types
    there. So ``sessions_total`` is written as a family of unknown type, under its whole name.
    """
    if (part.family.name, part.family.type) != (PREFIX + "sessions", "counter"):
        return part
    family = UnknownMetricFamily(PREFIX + "sessions_total", part.family.documentation)
    family.samples = part.family.samples
    return _Part(family, part.continued)


def _without_head(text: bytes) -> bytes:
    while text.startswith(b"#"):
        text = text.partition(b"\n")[2]
    return text


def _parts(view: GatewayView) -> Iterator[_Part]:
    yield from map(_Part, of_gateway(view))
    chunks = [
        view.endpoints[start : start + ENDPOINTS_PER_PART]
        for start in range(0, len(view.endpoints), ENDPOINTS_PER_PART)
    ] or [()]
    yield _Part(ended_without_endpoint(view.sums))
    for chunk in chunks:
        yield _Part(ended_by_endpoint(chunk, view.sums), continued=True)
    for describe in BY_ENDPOINT:
        for number, chunk in enumerate(chunks):
            yield _Part(describe(chunk, view.sums), continued=number > 0)
    # Of the master, also where another process answers while it executes its next image.
    yield from map(_Part, of_process(view.pid, view.started_at))
