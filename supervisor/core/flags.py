"""Every flag of ``start`` and ``check`` as one table: names, defaults, help, and how to read them.

The command line, the environment, the config file, completion and ``docs/usage.md`` are made from
it. A reader turns one text into a value, or raises ValueError saying what was expected.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gateway.core.address import (
    MAX_NAME_LENGTH,
    parse_admin,
    parse_endpoint,
    parse_listen,
    parse_name,
    parse_nameserver,
    parse_network,
)
from gateway.core.messages import MAX_SLOTS
from supervisor.core.duration import format_duration, parse_duration
from supervisor.core.spelling import nearest

Read = Callable[[str], Any]


class Topic(enum.StrEnum):
    """The headings under which help and ``docs/usage.md`` show the flags."""

    ENDPOINTS = "Endpoints"
    LISTENING = "Listening and sessions"
    DIALING = "Dialing and balancing"
    HEALTH = "Health"
    WORKERS = "Workers"
    OBSERVING = "Observing and configuring"


class FlagKind(enum.Enum):
    """How often a flag may be given, and whether it takes a value."""

    ONE = enum.auto()
    MANY = enum.auto()
    """Comma-separated and repeatable."""
    SWITCH = enum.auto()
    """``--x`` is ``--x=true``; a value needs the equals sign."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """One flag. ``field`` is its name in Config; ``default`` is what help shows."""

    name: str
    field: str
    read: Read
    default: str
    metavar: str
    help: str
    topic: Topic
    kind: FlagKind = FlagKind.ONE
    choices: tuple[str, ...] = ()
    may_be_empty: bool = False
    """An empty text is a value: nothing."""

    @property
    def variable(self) -> str:
        """The environment variable."""
        return "GATEWAY_" + self.name.upper().replace("-", "_")

    @property
    def default_variable(self) -> str:
        """The variable in which a unit or an image sets a default that the config file beats."""
        return "GATEWAY_DEFAULT_" + self.name.upper().replace("-", "_")


SYNONYMS = {
    "warning": "warn",
    "err": "error",
    "information": "info",
    "text": "console",
    "leastconn": "least-sessions",
    "least-connections": "least-sessions",
    "least_conn": "least-sessions",
    "rr": "round-robin",
    "none": "off",
    "disabled": "off",
}
"""Words that other programs have for the same choices."""


def _choice(*words: str) -> Read:
    def read(text: str) -> str:
        if text not in words:
            expected = "expected " + ", ".join(words[:-1]) + f" or {words[-1]}"
            meant = nearest(text.lower(), words) or SYNONYMS.get(text.lower(), "")
            raise ValueError(expected + (f", did you mean {meant}?" if meant in words else ""))
        return text

    return read


def _whole(least: int, most: int) -> Read:
    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", text) or not least <= int(text) <= most:
            raise ValueError(f"expected a whole number from {least} to {most}")
        return int(text)

    return read


def _duration(least_s: float, most_s: float = float("inf"), zero: str = "") -> Read:
    """Seconds in a range; ``zero`` says what 0 means where it has a meaning."""

    def read(text: str) -> float:
        seconds = parse_duration(text)
        if seconds == 0 and zero:
            return seconds
        if not least_s <= seconds <= most_s:
            low = f"at least {format_duration(least_s)}"
            high = f" and at most {format_duration(most_s)}" if most_s != float("inf") else ""
            raise ValueError(f"expected {low}{high}" + (f", or 0s: {zero}" if zero else ""))
        return seconds

    return read


def _workers(text: str) -> int:
    if text == "auto":
        return 0
    try:
        return int(_whole(1, MAX_SLOTS)(text))
    except ValueError as error:
        raise ValueError(f"{error}, or auto") from None


def _refresh(text: str) -> tuple[str, float]:
    if text in ("ttl", "off"):
        return text, 0.0
    try:
        return "fixed", float(_duration(0.1)(text))
    except ValueError as error:
        raise ValueError(f"{error}; or one of ttl, off") from None


def _switch(text: str) -> bool:
    # The words of Go's strconv.ParseBool, which etcd gateway's flags take.
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    meant = {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(text.lower(), "")
    raise ValueError("expected true or false" + (f", did you mean {meant}?" if meant else ""))


def _srv_suffix(text: str) -> str:
    if text and not re.fullmatch(r"[A-Za-z0-9_-]{1,46}", text):
        # 46: _etcd-client-ssl-NAME is one label of at most 63 characters.
        raise ValueError("expected letters, digits, dashes or underscores, at most 46 of them")
    return text.lower()


def _srv_domain(text: str) -> str:
    if not text:
        return ""
    name = parse_name(text)
    if re.fullmatch(r"[0-9.]+", name):
        raise ValueError("expected a domain; IP addresses go to --endpoints")
    if all(label.startswith("_") for label in name.removesuffix(".").split(".")):
        raise ValueError("expected a domain behind it, as in _postgresql._tcp.example.com")
    longest = MAX_NAME_LENGTH - len("_etcd-client-ssl._tcp.")
    if not name.startswith("_") and len(name) > longest:
        raise ValueError(f"expected a domain of at most {longest} characters")
    return name


def _file(text: str) -> str:
    if "\0" in text:
        raise ValueError("expected the path of a file")
    return text


def _host_seed(text: str) -> str:
    if len(text) > 255 or not text.isprintable():
        raise ValueError("expected at most 255 printable characters, other ones on each host")
    return text


def _endpoint_name(text: str) -> str:
    return str(parse_endpoint(text)[0])


def _percent(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,3}%", text) or int(text[:-1]) > 100:
        raise ValueError("expected a percentage from 0% to 100%")
    return int(text[:-1])


def _http_path(text: str) -> str:
    if not re.fullmatch(r"/[!-~]{0,1023}", text):
        raise ValueError("expected a path that begins with a slash, in ASCII without spaces")
    return text


_KEEPALIVE = _duration(1, 32767)  # whole seconds from 1 to 32767, MAX_TCP_KEEPIDLE in Linux

FLAGS: tuple[Flag, ...] = (
    Flag(
        name="endpoints",
        field="endpoints",
        kind=FlagKind.MANY,
        read=parse_endpoint,
        default="127.0.0.1:2379",
        metavar="HOST:PORT,...",
        topic=Topic.ENDPOINTS,
        help="Where sessions go: host:port or [v6]:port; http:// and https:// in front are "
        "stripped. With --discovery-srv, and given explicitly, what to use when DNS finds nothing.",
    ),
    Flag(
        name="discovery-srv",
        field="discovery_srv",
        read=_srv_domain,
        default="",
        may_be_empty=True,
        metavar="DOMAIN",
        topic=Topic.ENDPOINTS,
        help="Find the endpoints by the SRV records _etcd-client-ssl._tcp.DOMAIN and "
        "_etcd-client._tcp.DOMAIN, and follow them. A value that begins with _ is the full name "
        "of the records, for services other than etcd.",
    ),
    Flag(
        name="discovery-srv-name",
        field="discovery_srv_name",
        read=_srv_suffix,
        default="",
        may_be_empty=True,
        metavar="NAME",
        topic=Topic.ENDPOINTS,
        help="Suffix of the service: _etcd-client-ssl-NAME._tcp.DOMAIN and "
        "_etcd-client-NAME._tcp.DOMAIN.",
    ),
    Flag(
        name="discovery-refresh",
        field="discovery_refresh",
        read=_refresh,
        default="ttl",
        metavar="ttl|off|DURATION",
        choices=("ttl", "off"),
        topic=Topic.ENDPOINTS,
        help="When names are looked up again: as their TTL says (5s to 5m), never, or this often.",
    ),
    Flag(
        name="removal-grace",
        field="removal_grace_s",
        read=_duration(0.001, zero="until they end"),
        default="30s",
        metavar="DURATION",
        topic=Topic.ENDPOINTS,
        help="How long sessions live on after their endpoint left DNS; 0s: until they end.",
    ),
    Flag(
        name="drain-endpoints",
        field="drain_endpoints",
        kind=FlagKind.MANY,
        read=_endpoint_name,
        default="",
        may_be_empty=True,
        metavar="HOST:PORT,...",
        topic=Topic.ENDPOINTS,
        help="Endpoints under maintenance: they get no new sessions, and those that they have end "
        "within --removal-grace. For the config file and a reload.",
    ),
    Flag(
        name="prefer",
        field="prefer",
        kind=FlagKind.MANY,
        read=parse_network,
        default="",
        may_be_empty=True,
        metavar="CIDR,...",
        topic=Topic.ENDPOINTS,
        help="Use the endpoints in these networks first, within their priority; the others when "
        "none of them is active.",
    ),
    Flag(
        name="nameserver",
        field="nameserver",
        kind=FlagKind.MANY,
        read=parse_nameserver,
        default="",
        may_be_empty=True,
        metavar="IP[:PORT],...",
        topic=Topic.ENDPOINTS,
        help="Ask these DNS servers instead of the system's.",
    ),
    Flag(
        name="insecure-discovery",
        field="insecure_discovery",
        kind=FlagKind.SWITCH,
        read=_switch,
        default="false",
        metavar="",
        topic=Topic.ENDPOINTS,
        help="Accept endpoints found by SRV without the TLS check.",
    ),
    Flag(
        name="trusted-ca-file",
        field="trusted_ca_file",
        read=_file,
        default="",
        may_be_empty=True,
        metavar="FILE",
        topic=Topic.ENDPOINTS,
        help="CA certificates (PEM) for the TLS check of endpoints found by SRV, whose "
        "certificates must be valid for the discovery domain; without it the system's. "
        "Clients' data is never decrypted.",
    ),
    Flag(
        name="listen-addr",
        field="listen_addr",
        kind=FlagKind.MANY,
        read=parse_listen,
        default="127.0.0.1:23790",
        metavar="HOST:PORT,...",
        topic=Topic.LISTENING,
        help="Where clients connect; :PORT is all interfaces.",
    ),
    Flag(
        name="max-sessions",
        field="max_sessions",
        read=_whole(0, 10_000_000),
        default="0",
        metavar="N",
        topic=Topic.LISTENING,
        help="Most sessions at once; further clients wait until one ends. 0: what the "
        "limit of open files allows.",
    ),
    Flag(
        name="max-session-rate",
        field="max_session_rate",
        read=_whole(0, 1_000_000),
        default="0",
        metavar="N",
        topic=Topic.LISTENING,
        help="Most new clients a second, over all workers; further clients wait. 0: any number.",
    ),
    Flag(
        name="max-session-age",
        field="max_session_age_s",
        read=_duration(0.1, zero="never"),
        default="0s",
        metavar="DURATION",
        topic=Topic.LISTENING,
        help="Close sessions of this age, a tenth more or less, so that they are spread over all "
        "endpoints again; 0s: never.",
    ),
    Flag(
        name="rebalance",
        field="rebalance_s",
        read=_duration(1, zero="off"),
        default="0s",
        metavar="DURATION",
        topic=Topic.DIALING,
        help="While an endpoint has more than its share of the sessions, close its oldest idle "
        "ones, spread over this long; 0s: off.",
    ),
    Flag(
        name="idle-timeout",
        field="idle_timeout_s",
        read=_duration(0.001, zero="never"),
        default="0s",
        metavar="DURATION",
        topic=Topic.LISTENING,
        help="Close a session on which no byte moved either way for this long; 0s: never.",
    ),
    Flag(
        name="drain-timeout",
        field="drain_timeout_s",
        read=_duration(0.001, zero="cut at once"),
        default="30s",
        metavar="DURATION",
        topic=Topic.LISTENING,
        help="How long sessions may go on after a stop was asked for; 0s: cut at once.",
    ),
    Flag(
        name="keepalive-time",
        field="keepalive_time_s",
        read=_KEEPALIVE,
        default="15s",
        metavar="DURATION",
        topic=Topic.LISTENING,
        help="TCP keepalive on both legs: the silence before the first probe.",
    ),
    Flag(
        name="keepalive-interval",
        field="keepalive_interval_s",
        read=_KEEPALIVE,
        default="15s",
        metavar="DURATION",
        topic=Topic.LISTENING,
        help="TCP keepalive: the time between probes.",
    ),
    Flag(
        name="keepalive-probes",
        field="keepalive_probes",
        read=_whole(1, 127),
        default="4",
        metavar="N",
        topic=Topic.LISTENING,
        help="TCP keepalive: unanswered probes before the peer is given up.",
    ),
    Flag(
        name="tcp-user-timeout",
        field="tcp_user_timeout_s",
        read=_duration(0.001, 2**31 // 1000, zero="the kernel's default"),
        default="30s",
        metavar="DURATION",
        topic=Topic.LISTENING,
        help="How long sent data may stay unacknowledged before the peer is given up, both "
        "legs; 0s: the kernel's default.",
    ),
    Flag(
        name="dial-timeout",
        field="dial_timeout_s",
        read=_duration(0.001),
        default="2s",
        metavar="DURATION",
        topic=Topic.DIALING,
        help="One attempt to reach one address of an endpoint.",
    ),
    Flag(
        name="dial-hedge",
        field="dial_hedge_s",
        read=_duration(0.001, zero="off"),
        default="250ms",
        metavar="DURATION",
        topic=Topic.DIALING,
        help="When a dial takes longer than this the next endpoint is dialed too and the first "
        "to connect wins; 0s: off.",
    ),
    Flag(
        name="balance",
        field="balance",
        read=_choice("round-robin", "least-sessions"),
        default="round-robin",
        metavar="round-robin|least-sessions",
        choices=("round-robin", "least-sessions"),
        topic=Topic.DIALING,
        help="How new sessions are spread over the endpoints of the best priority.",
    ),
    Flag(
        name="host-seed",
        field="host_seed",
        read=_host_seed,
        default="",
        may_be_empty=True,
        metavar="TEXT",
        topic=Topic.DIALING,
        help="What makes this host begin with another endpoint than other hosts do, for hosts and "
        "containers that share a machine id; without it the machine id, else the host's name and "
        "boot id.",
    ),
    Flag(
        name="slow-start",
        field="slow_start_s",
        read=_duration(0.001, zero="off"),
        default="0s",
        metavar="DURATION",
        topic=Topic.DIALING,
        help="An endpoint that came back gets its share of new sessions in a ramp of this length; "
        "0s: at once.",
    ),
    Flag(
        name="close-spread",
        field="close_spread_s",
        read=_duration(0.001, zero="at once"),
        default="1s",
        metavar="DURATION",
        topic=Topic.DIALING,
        help="Sessions that have to be closed together are closed over this long, each at a moment "
        "of its own; 0s: at once.",
    ),
    Flag(
        name="on-inactive",
        field="on_inactive",
        read=_choice("keep", "close"),
        default="keep",
        metavar="keep|close",
        choices=("keep", "close"),
        topic=Topic.DIALING,
        help="What happens to the sessions of an endpoint that turned inactive.",
    ),
    Flag(
        name="retry-delay",
        field="retry_delay_s",
        read=_duration(0.01),
        default="1m0s",
        metavar="DURATION",
        topic=Topic.HEALTH,
        help="Longest delay between two probes of an inactive endpoint; the first come sooner.",
    ),
    Flag(
        name="health-check",
        field="health_check",
        read=_choice("auto", "tcp", "tls", "http", "https", "off"),
        default="auto",
        metavar="auto|tcp|tls|http|https|off",
        choices=("auto", "tcp", "tls", "http", "https", "off"),
        topic=Topic.HEALTH,
        help="How endpoints are probed. auto: tls where an endpoint is known to speak it, else "
        "tcp. off: only failed dials tell.",
    ),
    Flag(
        name="health-path",
        field="health_path",
        read=_http_path,
        default="/health",
        metavar="PATH",
        topic=Topic.HEALTH,
        help='What http and https probes ask for: 200 is healthy, and a JSON body with "health" '
        'must say "true".',
    ),
    Flag(
        name="health-interval",
        field="health_interval_s",
        read=_duration(0.01),
        default="5s",
        metavar="DURATION",
        topic=Topic.HEALTH,
        help="The time between two probes of an active endpoint.",
    ),
    Flag(
        name="health-idle-interval",
        field="health_idle_interval_s",
        read=_duration(0.01),
        default="60s",
        metavar="DURATION",
        topic=Topic.HEALTH,
        help="The time between two probes of an active endpoint that nobody uses, or whose traffic "
        "proves what a tcp or tls probe would; at least --health-interval.",
    ),
    Flag(
        name="health-min-active",
        field="health_min_active",
        read=_percent,
        default="50%",
        metavar="PERCENT",
        topic=Topic.HEALTH,
        help="When fewer endpoints than this are active, failed probes alone take none away: it is "
        "rather this host that is cut off. Failed dials still do. 0%: off.",
    ),
    Flag(
        name="health-timeout",
        field="health_timeout_s",
        read=_duration(0.001),
        default="2s",
        metavar="DURATION",
        topic=Topic.HEALTH,
        help="How long one probe may take.",
    ),
    Flag(
        name="health-rise",
        field="health_rise",
        read=_whole(1, 1000),
        default="1",
        metavar="N",
        topic=Topic.HEALTH,
        help="Good probes in a row that make an endpoint active.",
    ),
    Flag(
        name="health-fall",
        field="health_fall",
        read=_whole(1, 1000),
        default="1",
        metavar="N",
        topic=Topic.HEALTH,
        help="Failed probes in a row that make an endpoint inactive.",
    ),
    Flag(
        name="health-cert-file",
        field="health_cert_file",
        read=_file,
        default="",
        may_be_empty=True,
        metavar="FILE",
        topic=Topic.HEALTH,
        help="Client certificate (PEM) for tls and https probes.",
    ),
    Flag(
        name="health-key-file",
        field="health_key_file",
        read=_file,
        default="",
        may_be_empty=True,
        metavar="FILE",
        topic=Topic.HEALTH,
        help="Its key (PEM, not encrypted).",
    ),
    Flag(
        name="workers",
        field="workers",
        read=_workers,
        default="auto",
        metavar="auto|N",
        choices=("auto",),
        topic=Topic.WORKERS,
        help="Worker processes; auto: as many as the CPUs that this process may use.",
    ),
    Flag(
        name="pin-workers",
        field="pin_workers",
        kind=FlagKind.SWITCH,
        read=_switch,
        default="false",
        metavar="",
        topic=Topic.WORKERS,
        help="Pin each worker to a CPU of its own.",
    ),
    Flag(
        name="worker-timeout",
        field="worker_timeout_s",
        read=_duration(1),
        default="30s",
        metavar="DURATION",
        topic=Topic.WORKERS,
        help="A worker that sent no heartbeat for this long is killed and replaced.",
    ),
    Flag(
        name="worker-max-age",
        field="worker_max_age_s",
        read=_duration(1, zero="never"),
        default="0s",
        metavar="DURATION",
        topic=Topic.WORKERS,
        help="Replace a worker that is this old; its sessions drain. 0s: never.",
    ),
    Flag(
        name="handover",
        field="handover",
        kind=FlagKind.SWITCH,
        read=_switch,
        default="false",
        metavar="",
        topic=Topic.WORKERS,
        help="For service managers that keep descriptors: after TERM the workers go on "
        "accepting for the next master.",
    ),
    Flag(
        name="admin-addr",
        field="admin_addr",
        kind=FlagKind.MANY,
        read=parse_admin,
        default="",
        may_be_empty=True,
        metavar="HOST:PORT|unix:/PATH,...",
        topic=Topic.OBSERVING,
        help="Where the status page, /status, /metrics and the health of the gateway are served.",
    ),
    Flag(
        name="admin-host",
        field="admin_host",
        kind=FlagKind.MANY,
        read=parse_name,
        default="",
        may_be_empty=True,
        metavar="NAME,...",
        topic=Topic.OBSERVING,
        help="Names under which the admin address may be asked, besides IP addresses and "
        "localhost; a request for another name gets 421.",
    ),
    Flag(
        name="log-level",
        field="log_level",
        read=_choice("debug", "info", "warn", "error"),
        default="info",
        metavar="debug|info|warn|error",
        choices=("debug", "info", "warn", "error"),
        topic=Topic.OBSERVING,
        help="The least important lines that are written.",
    ),
    Flag(
        name="log-format",
        field="log_format",
        read=_choice("auto", "json", "console"),
        default="auto",
        metavar="auto|json|console",
        choices=("auto", "json", "console"),
        topic=Topic.OBSERVING,
        help="auto: console on a terminal, else json.",
    ),
    Flag(
        name="access-log",
        field="access_log",
        kind=FlagKind.SWITCH,
        read=_switch,
        default="false",
        metavar="",
        topic=Topic.OBSERVING,
        help="Write one line per session when it ends.",
    ),
    Flag(
        name="config-file",
        field="config_file",
        read=_file,
        default="",
        may_be_empty=True,
        metavar="FILE",
        topic=Topic.OBSERVING,
        help="TOML; the keys are the flags' names without the dashes in front. Read again "
        "on SIGHUP.",
    ),
)

BY_NAME: dict[str, Flag] = {flag.name: flag for flag in FLAGS}
