"""Every flag of ``start`` and ``check`` as one table: names, defaults, help, and how to read them.

The command line, the environment, the config file, completion and ``docs/usage.md`` are made from
it.
"""

from __future__ import annotations

import enum

from gateway.core.address import (
    parse_admin,
    parse_endpoint,
    parse_listen,
    parse_name,
    parse_nameserver,
    parse_network,
)
from gateway.core.records import dataclass
from supervisor.core import flag_readers as readers
from supervisor.core.flag_readers import Read


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
    instead_of_empty: str = ""
    """Of lists without which less is restricted: what else to give than an empty text, which is an
    error in every source. A template that came out empty must not open what it was to restrict."""
    example: str = ""
    """A value for sample files, where the default is none that could be written."""
    has_options: bool = False
    """Of those with several values: ``,name=value`` behind one is an option of it."""

    @property
    def variable(self) -> str:
        """The environment variable."""
        return "GATEWAY_" + self.name.upper().replace("-", "_")

    @property
    def default_variable(self) -> str:
        """The variable in which a unit or an image sets a default that the config file beats."""
        return "GATEWAY_DEFAULT_" + self.name.upper().replace("-", "_")


def _duration(
    *,
    name: str,
    read: Read,
    default: str,
    topic: Topic,
    help: str,  # noqa: A002
) -> Flag:
    """A flag for a length of time; its field is a number of seconds."""
    return Flag(
        name=name,
        field=f"{_field_of(name)}_s",
        read=read,
        default=default,
        metavar="DURATION",
        topic=topic,
        help=help,
    )


def _one_of(
    *,
    name: str,
    words: tuple[str, ...],
    topic: Topic,
    help: str,  # noqa: A002
    default: str = "",
) -> Flag:
    """A flag that is one of these words; the first of them unless ``default`` names another."""
    return Flag(
        name=name,
        field=_field_of(name),
        read=readers.choice(*words),
        default=default or words[0],
        metavar="|".join(words),
        choices=words,
        topic=topic,
        help=help,
    )


def _switch(*, name: str, topic: Topic, help: str) -> Flag:  # noqa: A002
    """A flag that is off unless it is given."""
    return Flag(
        name=name,
        field=_field_of(name),
        kind=FlagKind.SWITCH,
        read=readers.switch,
        default="false",
        metavar="",
        topic=topic,
        help=help,
    )


def _field_of(name: str) -> str:
    return name.replace("-", "_")


FLAGS: tuple[Flag, ...] = (
    Flag(
        name="endpoints",
        field="endpoints",
        kind=FlagKind.MANY,
        read=parse_endpoint,
        default="127.0.0.1:2379",
        metavar="HOST:PORT|unix:/PATH,...",
        topic=Topic.ENDPOINTS,
        help="Connect sessions to these: host:port, [v6]:port or unix:/path; http:// and https:// "
        "in front are stripped. With --discovery-srv they are the fallback, if set: used while no "
        "endpoint of the SRV records can be used.",
    ),
    Flag(
        name="discovery-srv",
        field="discovery_srv",
        read=readers.srv_domain,
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
        read=readers.srv_suffix,
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
        read=readers.refresh,
        default="ttl",
        metavar="ttl|off|DURATION",
        choices=("ttl", "off"),
        topic=Topic.ENDPOINTS,
        help="Look names up again: when their TTL expires (5s to 5m), never, or this often.",
    ),
    Flag(
        name="member-sync",
        field="member_sync_s",
        read=readers.member_sync,
        default="off",
        metavar="off|DURATION",
        choices=("off",),
        topic=Topic.ENDPOINTS,
        help="Ask the etcd cluster this often for its members and follow them; what --endpoints or "
        "SRV records name is where to begin.",
    ),
    _duration(
        name="removal-grace",
        read=readers.duration(0.001, zero="until they end"),
        default="30s",
        topic=Topic.ENDPOINTS,
        help="Let sessions go on for this long after their endpoint left DNS; 0s: until they end.",
    ),
    Flag(
        name="drain-endpoints",
        field="drain_endpoints",
        kind=FlagKind.MANY,
        read=readers.endpoint_name,
        default="",
        may_be_empty=True,
        metavar="HOST:PORT,...",
        topic=Topic.ENDPOINTS,
        help="Endpoints under maintenance: they get no new sessions, and those that they have end "
        "within --removal-grace. Set it in the config file, then reload.",
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
    _switch(
        name="insecure-discovery",
        topic=Topic.ENDPOINTS,
        help="Accept endpoints found by SRV without the TLS check.",
    ),
    Flag(
        name="trusted-ca-file",
        field="trusted_ca_file",
        read=readers.file_path,
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
        has_options=True,
        metavar="HOST:PORT|unix:/PATH[,mode=0660][,group=NAME],...",
        topic=Topic.LISTENING,
        help="Listen for clients here; :PORT is all interfaces, unix:/PATH a UNIX socket with this "
        "mode and group, unix:@NAME an abstract one.",
    ),
    Flag(
        name="allow",
        field="allow",
        kind=FlagKind.MANY,
        read=readers.network,
        default="",
        instead_of_empty="expected at least one network; 0.0.0.0/0,::/0 is everybody",
        example="10.0.0.0/8",
        metavar="CIDR,...",
        topic=Topic.LISTENING,
        help="Serve only clients with an address in these networks, and close others at once; "
        "without it everybody is served. With --proxy-in the original address counts.",
    ),
    Flag(
        name="proxy-in",
        field="proxy_in",
        kind=FlagKind.MANY,
        read=readers.proxy_peer,
        default="",
        instead_of_empty="expected at least one network, or unix; leave it out to read no headers",
        example="10.0.0.0/8",
        metavar="CIDR|unix,...",
        topic=Topic.LISTENING,
        help="Connections from these networks begin with a PROXY protocol header, version 1 or 2, "
        "that tells the original client; unix: those on UNIX sockets do. From others none is read.",
    ),
    Flag(
        name="max-sessions",
        field="max_sessions",
        read=readers.whole(0, 10_000_000, zero="as many as the open files allow"),
        default="0",
        metavar="N",
        topic=Topic.LISTENING,
        help="Serve at most this many sessions at once; further clients wait until one ends. 0: as "
        "many as the limit of open files allows.",
    ),
    Flag(
        name="max-session-rate",
        field="max_session_rate",
        read=readers.whole(0, 1_000_000, zero="any number"),
        default="0",
        metavar="N",
        topic=Topic.LISTENING,
        help="Accept at most this many clients a second, over all workers; further clients wait. "
        "0: any number.",
    ),
    _duration(
        name="max-session-age",
        read=readers.duration(0.1, zero="never"),
        default="0s",
        topic=Topic.LISTENING,
        help="Close sessions of this age, a tenth more or less, so that they are spread over all "
        "endpoints again; 0s: never.",
    ),
    _duration(
        name="rebalance",
        read=readers.duration(1, zero="off"),
        default="0s",
        topic=Topic.DIALING,
        help="While an endpoint has more than its share of the sessions, close its oldest idle "
        "ones, spread over this long; 0s: off.",
    ),
    _duration(
        name="idle-timeout",
        read=readers.duration(0.001, zero="never"),
        default="0s",
        topic=Topic.LISTENING,
        help="Close a session on which no byte moved either way for this long; 0s: never.",
    ),
    _duration(
        name="drain-timeout",
        read=readers.duration(0.001, zero="cut at once"),
        default="30s",
        topic=Topic.LISTENING,
        help="Let sessions go on for this long after a stop was requested; 0s: cut at once.",
    ),
    _duration(
        name="keepalive-time",
        read=readers.KEEPALIVE,
        default="15s",
        topic=Topic.LISTENING,
        help="TCP keepalive on both legs: silence before the first probe.",
    ),
    _duration(
        name="keepalive-interval",
        read=readers.KEEPALIVE,
        default="15s",
        topic=Topic.LISTENING,
        help="TCP keepalive: time between probes.",
    ),
    Flag(
        name="keepalive-probes",
        field="keepalive_probes",
        read=readers.whole(1, 127),
        default="4",
        metavar="N",
        topic=Topic.LISTENING,
        help="TCP keepalive: unanswered probes before the connection ends.",
    ),
    _duration(
        name="tcp-user-timeout",
        read=readers.duration(0.001, 2**31 // 1000, zero="the kernel's default"),
        default="30s",
        topic=Topic.LISTENING,
        help="How long sent data may stay unacknowledged before the peer is given up, both "
        "legs; 0s: the kernel's default.",
    ),
    _duration(
        name="dial-timeout",
        read=readers.duration(0.001),
        default="2s",
        topic=Topic.DIALING,
        help="Give one attempt to reach one address of an endpoint this long.",
    ),
    _duration(
        name="dial-hedge",
        read=readers.duration(0.001, zero="off"),
        default="250ms",
        topic=Topic.DIALING,
        help="When a dial takes longer than this, dial the next endpoint too; the first to connect "
        "wins. 0s: off.",
    ),
    _one_of(
        name="proxy-out",
        words=("off", "v1", "v2"),
        topic=Topic.DIALING,
        help="Tell endpoints the original client by a PROXY protocol header of this version before "
        "the first byte; endpoints have to expect it.",
    ),
    Flag(
        name="source-addr",
        field="source_addr",
        kind=FlagKind.MANY,
        read=readers.source_address,
        default="",
        instead_of_empty="expected an IP address of this host; without it the kernel chooses",
        example="192.0.2.1",
        metavar="IP,...",
        topic=Topic.DIALING,
        help="Dial endpoints from this address of this host, one for each family; without it the "
        "kernel chooses.",
    ),
    _one_of(
        name="balance",
        words=("round-robin", "least-sessions"),
        topic=Topic.DIALING,
        help="How to spread new sessions over the endpoints of the best priority.",
    ),
    Flag(
        name="host-seed",
        field="host_seed",
        read=readers.host_seed,
        default="",
        may_be_empty=True,
        metavar="TEXT",
        topic=Topic.DIALING,
        help="Seed of this host's order of the endpoints, so that hosts begin with different ones; "
        "for hosts and containers that share a machine id. Without it the machine id, else the "
        "host's name and boot id.",
    ),
    _duration(
        name="slow-start",
        read=readers.duration(0.001, zero="off"),
        default="0s",
        topic=Topic.DIALING,
        help="An endpoint that came back gets its share of new sessions in a ramp of this length; "
        "0s: at once.",
    ),
    _duration(
        name="close-spread",
        read=readers.duration(0.001, zero="at once"),
        default="1s",
        topic=Topic.DIALING,
        help="Sessions that have to be closed together are closed over this long, each at a moment "
        "of its own; 0s: at once.",
    ),
    _one_of(
        name="on-inactive",
        words=("keep", "close"),
        topic=Topic.DIALING,
        help="What to do with the sessions of an endpoint that turned inactive.",
    ),
    _duration(
        name="retry-delay",
        read=readers.duration(0.01),
        default="1m0s",
        topic=Topic.HEALTH,
        help="Longest delay between two probes of an inactive endpoint; the first come sooner.",
    ),
    _one_of(
        name="health-check",
        words=("auto", "tcp", "tls", "http", "https", "etcd", "off"),
        topic=Topic.HEALTH,
        help="How to probe endpoints. auto: tls where an endpoint is known to speak it, else "
        "tcp. etcd: ask the member for its leader and its alarms. off: rely on failed dials.",
    ),
    Flag(
        name="health-path",
        field="health_path",
        read=readers.http_path,
        default="/health",
        metavar="PATH",
        topic=Topic.HEALTH,
        help="Path that http and https probes request: 200 is healthy, and a JSON body with "
        '"health" must say "true". A query goes with it, as in /health?exclude=NOSPACE.',
    ),
    Flag(
        name="health-port",
        field="health_port",
        read=readers.health_port,
        default="",
        may_be_empty=True,
        metavar="PORT",
        topic=Topic.HEALTH,
        help="Port that http, https and etcd probes go to, instead of the endpoint's own; for etcd "
        "that of --listen-metrics-urls, which wants no client certificate.",
    ),
    _duration(
        name="health-interval",
        read=readers.duration(0.01),
        default="5s",
        topic=Topic.HEALTH,
        help="The time between two probes of an active endpoint.",
    ),
    _duration(
        name="health-idle-interval",
        read=readers.duration(0.01),
        default="60s",
        topic=Topic.HEALTH,
        help="The time between two probes of an active endpoint that nobody uses, or whose traffic "
        "proves what a tcp or tls probe would; at least --health-interval. If you set only "
        "--health-interval, to less than 5s, this is four times as long.",
    ),
    Flag(
        name="health-min-active",
        field="health_min_active",
        read=readers.percent,
        default="50%",
        metavar="PERCENT",
        topic=Topic.HEALTH,
        help="When fewer endpoints than this are active, failed probes alone turn none inactive, "
        "because it is probably this host that is cut off. Failed dials still do. 0%: off.",
    ),
    _duration(
        name="health-timeout",
        read=readers.duration(0.001),
        default="2s",
        topic=Topic.HEALTH,
        help="Give one probe this long.",
    ),
    Flag(
        name="health-rise",
        field="health_rise",
        read=readers.whole(1, 1000),
        default="1",
        metavar="N",
        topic=Topic.HEALTH,
        help="Turn an endpoint active after this many good probes in a row.",
    ),
    Flag(
        name="health-fall",
        field="health_fall",
        read=readers.whole(1, 1000),
        default="1",
        metavar="N",
        topic=Topic.HEALTH,
        help="Turn an endpoint inactive after this many failed probes in a row.",
    ),
    Flag(
        name="health-cert-file",
        field="health_cert_file",
        read=readers.file_path,
        default="",
        may_be_empty=True,
        metavar="FILE",
        topic=Topic.HEALTH,
        help="Client certificate (PEM) for tls, https and etcd probes, the TLS check and "
        "--member-sync.",
    ),
    Flag(
        name="health-key-file",
        field="health_key_file",
        read=readers.file_path,
        default="",
        may_be_empty=True,
        metavar="FILE",
        topic=Topic.HEALTH,
        help="Its key (PEM, not encrypted).",
    ),
    Flag(
        name="workers",
        field="workers",
        read=readers.workers,
        default="auto",
        metavar="auto|N",
        choices=("auto",),
        topic=Topic.WORKERS,
        help="Number of worker processes; auto: one per CPU that this process may use.",
    ),
    _switch(
        name="pin-workers",
        topic=Topic.WORKERS,
        help="Pin each worker to a CPU of its own.",
    ),
    _duration(
        name="worker-timeout",
        read=readers.duration(1),
        default="30s",
        topic=Topic.WORKERS,
        help="Kill and replace a worker that sent no heartbeat for this long.",
    ),
    _duration(
        name="worker-max-age",
        read=readers.duration(1, zero="never"),
        default="0s",
        topic=Topic.WORKERS,
        help="Replace a worker that is this old; its sessions drain. 0s: never.",
    ),
    _switch(
        name="handover",
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
        help="Serve the status page, /status, /sessions, /metrics and the gateway's health here.",
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
        help="Answer requests at the admin address for these host names, besides IP addresses and "
        "localhost; requests for others get 421.",
    ),
    _one_of(
        name="log-level",
        words=("debug", "info", "warn", "error"),
        default="info",
        topic=Topic.OBSERVING,
        help="Write lines of this level and above.",
    ),
    _one_of(
        name="log-format",
        words=("auto", "json", "console"),
        topic=Topic.OBSERVING,
        help="auto: console on a terminal, else json.",
    ),
    _switch(
        name="access-log",
        topic=Topic.OBSERVING,
        help="Write one line per session when it ends.",
    ),
    Flag(
        name="config-file",
        field="config_file",
        read=readers.file_path,
        default="",
        may_be_empty=True,
        metavar="FILE",
        topic=Topic.OBSERVING,
        help="TOML; the keys are the flags' names without the dashes in front. Read again "
        "on SIGHUP.",
    ),
)

BY_NAME: dict[str, Flag] = {flag.name: flag for flag in FLAGS}
