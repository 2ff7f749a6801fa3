"""What a probe of an endpoint is, by configuration; and what an HTTP answer means."""

from __future__ import annotations

import enum

from gateway.core.records import dataclass
from gateway.core.unix_address import is_unix
from supervisor.core.config import Config
from supervisor.core.discovery.endpoints import Discovered
from supervisor.core.discovery.targets import tls_domain
from supervisor.core.health.machine import Rules
from supervisor.core.json_object import read_object


class ProbeKind(enum.StrEnum):
    """The words of ``--health-check`` that say what a probe does."""

    TCP = "tcp"
    TLS = "tls"
    HTTP = "http"
    HTTPS = "https"
    ETCD = "etcd"


class Verdict(enum.StrEnum):
    """``result`` of ``probes_total``."""

    PASSED = "passed"
    FAILED = "failed"
    UNDECIDED = "undecided"
    """It failed on our own host (no descriptor, no route, no readable CA file): no evidence."""


@dataclass(frozen=True, slots=True)
class Result:
    """What one probe found; ``error`` is empty if it passed."""

    verdict: Verdict
    error: str = ""
    cut_off: bool = False
    """Undecided because this host cannot dial the endpoint at all: no route, a firewall."""
    told: bool = False
    """An etcd member said so itself: it is not this host that is cut off."""
    degraded: str = ""
    """It passed, and this is wrong with it all the same."""
    unanswered: bool = False
    """The endpoint's host said nothing to the request to connect, as far as our kernel heard."""


class UnhealthyError(Exception):
    """The endpoint answered and is not healthy; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How one endpoint is probed.

    ``server_name``: what its certificate must be valid for, and the Host of a request.
    ``verify``: False only for what ``--insecure-discovery`` let in. ``port``: None for the
    endpoint's own. ``known_tls``: an etcd member is known to speak TLS there.
    """

    kind: ProbeKind
    server_name: str
    verify: bool = True
    path: str = "/health"
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    port: int | None = None
    known_tls: bool = False
    source_addr: tuple[str, ...] = ()
    proxy_out: str = "off"
    """How endpoints are dialed: when it changes, what probes found before says little."""

    @property
    def secure(self) -> bool | None:
        """Whether there is TLS where the probe goes; None if that must be found out.

        Of an etcd endpoint that was given without ``https://`` nobody knows, nor of the port that
        its metrics are served at.
        """
        if self.kind is ProbeKind.ETCD:
            return self.known_tls or None
        return self.kind in (ProbeKind.TLS, ProbeKind.HTTPS)


def plan(config: Config, found: Discovered) -> Plan:
    """How to probe ``found``; with checks off by TCP, because an inactive one is still probed."""
    match config.health_check:
        case "auto":
            kind = ProbeKind.TLS if found.tls else ProbeKind.TCP
        case "off":
            kind = ProbeKind.TCP
        case word:
            kind = ProbeKind(word)
    asks = kind in (ProbeKind.HTTP, ProbeKind.HTTPS, ProbeKind.ETCD)
    port = config.health_port or None if asks and not is_unix(found.host) else None
    return Plan(
        kind=kind,
        port=port,
        known_tls=found.tls and port is None,
        server_name=_server_name(config, found),
        verify=not (found.srv and config.insecure_discovery),
        path=config.health_path,
        ca_file=config.trusted_ca_file,
        cert_file=config.health_cert_file,
        key_file=config.health_key_file,
        source_addr=config.source_addr,
        proxy_out=config.proxy_out,
    )


def _server_name(config: Config, found: Discovered) -> str:
    if found.srv:
        return tls_domain(config)
    return "localhost" if is_unix(found.host) else found.host


def rules(config: Config, kind: ProbeKind) -> Rules:
    """The machine's rules for an endpoint that is probed like this."""
    return Rules(
        interval_s=config.health_interval_s,
        idle_interval_s=config.health_idle_interval_s,
        retry_delay_s=config.retry_delay_s,
        rise=config.health_rise,
        fall=config.health_fall,
        probe_active=config.health_check != "off",
        dials_prove=kind is ProbeKind.TCP,
        bytes_prove=kind in (ProbeKind.TCP, ProbeKind.TLS),
    )


def fault(status: int, body: bytes) -> str | None:
    """What is wrong with this answer; None if it says healthy.

    200 is healthy, unless the body is a JSON object with ``"health"`` that does not say ``"true"``
    (etcd says it as a string; a JSON true is the same).
    """
    health = read_object(body).get("health", "true")
    reason = reason_of(body)
    because = f" ({reason})" if reason else ""
    if status != 200:
        return f"HTTP status {status}{because}"
    if health not in ("true", True):
        return f'health is "{health!s:.40}"{because}'
    return None


def reason_of(body: bytes) -> str:
    """The reason that a member gives for its health; "" if it gives none."""
    reason = read_object(body).get("reason")
    return reason[:200] if isinstance(reason, str) else ""
