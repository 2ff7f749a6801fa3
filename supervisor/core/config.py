"""The configuration: every flag as one typed, validated value.

Each flag is taken from the first source that has it: command line, environment, config file,
and the default that the unit or the image sets in ``GATEWAY_DEFAULT_...``.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import field
from typing import Any

from gateway.core.address import Address, HostPort
from gateway.core.records import dataclass
from gateway.core.unix_address import join_options
from supervisor.core.config_error import ConfigError, quote
from supervisor.core.config_sources import Given, describe_given, find_given, refuse_unknown
from supervisor.core.cross_flag_rules import check_admin, check_together
from supervisor.core.duration import format_duration
from supervisor.core.effective import EffectiveValue, find_misspelled, follow_from
from supervisor.core.flags import BY_NAME, FLAGS, Flag, FlagKind
from supervisor.core.spelling import WITHOUT_QUOTES, is_quoted


@dataclass(frozen=True, slots=True)
class StaticTarget:
    """One of ``--endpoints``: ``tls`` if it was given with ``https://``."""

    address: Address
    tls: bool = False


IDLE_INTERVALS = 4
"""The idle interval in health intervals, where only a quick one of these is given."""

DEFAULT_INTERVAL_S = 5.0
DEFAULT_IDLE_INTERVAL_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Names are the flags' with underscores; durations are seconds and end in ``_s``."""

    endpoints: tuple[StaticTarget, ...] = (StaticTarget(HostPort("127.0.0.1", 2379)),)
    endpoints_given: bool = False
    """Whether ``endpoints`` was set explicitly: only then is it the fallback of discovery_srv."""
    discovery_srv: str = ""
    discovery_srv_name: str = ""
    insecure_discovery: bool = False
    trusted_ca_file: str = ""
    listen_addr: tuple[Address, ...] = (HostPort("127.0.0.1", 23790),)
    retry_delay_s: float = 60.0
    workers: int = 0
    """0 is ``auto``: the CPUs this process may use."""
    pin_workers: bool = False
    dial_timeout_s: float = 2.0
    dial_hedge_s: float = 0.25
    drain_timeout_s: float = 30.0
    idle_timeout_s: float = 0.0
    keepalive_time_s: float = 15.0
    keepalive_interval_s: float = 15.0
    keepalive_probes: int = 4
    tcp_user_timeout_s: float = 30.0
    allow: tuple[str, ...] = ()
    proxy_in: tuple[str, ...] = ()
    """Networks, and the word ``unix``."""
    proxy_out: str = "off"
    source_addr: tuple[str, ...] = ()
    """One literal IP for each family."""
    max_sessions: int = 0
    max_session_rate: int = 0
    max_session_age_s: float = 0.0
    rebalance_s: float = 0.0
    balance: str = "round-robin"
    host_seed: str = ""
    """Empty: from the machine."""
    on_inactive: str = "keep"
    removal_grace_s: float = 30.0
    drain_endpoints: tuple[str, ...] = ()
    prefer: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()
    slow_start_s: float = 0.0
    close_spread_s: float = 1.0
    nameserver: tuple[HostPort, ...] = ()
    discovery_refresh: str = "ttl"
    """``ttl``, ``off``, or ``fixed`` with ``discovery_refresh_s``."""
    discovery_refresh_s: float = 0.0
    member_sync_s: float = 0.0
    """0 is ``off``."""
    health_check: str = "auto"
    health_path: str = "/health"
    health_port: int = 0
    """0 is the endpoint's own."""
    health_interval_s: float = DEFAULT_INTERVAL_S
    health_idle_interval_s: float = DEFAULT_IDLE_INTERVAL_S
    health_min_active: int = 50
    """Percent."""
    health_timeout_s: float = 2.0
    health_rise: int = 1
    health_fall: int = 1
    health_cert_file: str = ""
    health_key_file: str = ""
    worker_timeout_s: float = 30.0
    worker_max_age_s: float = 0.0
    handover: bool = False
    admin_addr: tuple[str, ...] = ()
    """``host:port`` or ``unix:/path``, validated."""
    admin_host: tuple[str, ...] = ()
    """In lower case and without a dot at the end."""
    log_level: str = "info"
    log_format: str = "auto"
    access_log: bool = False
    config_file: str = ""

    effective: tuple[EffectiveValue, ...] = field(default=(), compare=False, repr=False)
    """The same as texts with their sources, one for each flag that was read."""
    misspelled: tuple[tuple[str, str], ...] = field(default=(), compare=False, repr=False)
    """Variables that are no flag's but are spelled almost like one, each with that one."""
    wrong_but_overridden: tuple[str, ...] = field(default=(), compare=False, repr=False)
    """What is wrong with values that another source overrides: they count once it does no more."""


def build(
    flags: Mapping[str, Sequence[str]],
    environ: Mapping[str, str],
    document: Mapping[str, Any],
    *,
    document_name: str = "the config file",
    only: Collection[str] = BY_NAME.keys(),
    strict: bool = True,
) -> Config:
    """The configuration that these sources say together; raises ConfigError.

    ``flags`` has the texts of each flag that was given, by name; ``document`` is the config file.
    An empty variable counts as not set, unless it is to be refused. Flags that are not in ``only``
    keep their default. ``strict``: a key of the file that no flag has is an error.
    """
    if strict:
        refuse_unknown(document, document_name)
    fields: dict[str, Any] = {}
    used: dict[str, Given] = {}
    effective: list[EffectiveValue] = []
    wrong: list[str] = []
    for flag in FLAGS:
        if flag.name not in only:
            continue
        given = tuple(find_given(flag, flags, environ, document, document_name))
        in_effect: dict[str, Any] = {}
        if given:
            used[flag.name] = given[0]
            in_effect = _fields(flag, _read(flag, given[0]))
            fields |= in_effect
        same = [_means(in_effect, flag, each, wrong) for each in given[1:]]
        effective.append(describe_given(flag, given, same))
    if "health-idle-interval" not in used and "health_interval_s" in fields:
        idle_s = fields["health_idle_interval_s"] = _idle_interval_s(fields["health_interval_s"])
        if idle_s != DEFAULT_IDLE_INTERVAL_S:
            effective = follow_from(effective, "health-idle-interval", format_duration(idle_s))
    check_together(fields, used)
    config = Config(
        **fields,
        effective=tuple(effective),
        misspelled=find_misspelled(environ),
        wrong_but_overridden=tuple(wrong),
    )
    if "listen-addr" in only:
        check_admin(config.admin_addr, config.listen_addr, used)
    return config


def _idle_interval_s(interval_s: float) -> float:
    """The idle interval, in seconds, for an operator who chose only ``--health-interval``.

    An operator who asks for quicker probes than the default's wants to hear soon of endpoints
    that nobody uses, too.
    """
    quick = interval_s < DEFAULT_INTERVAL_S
    return IDLE_INTERVALS * interval_s if quick else max(DEFAULT_IDLE_INTERVAL_S, interval_s)


def find_config_file(flags: Mapping[str, Sequence[str]], environ: Mapping[str, str]) -> str:
    """The path of the config file, or an empty string."""
    return build(flags, environ, {}, only=("config-file",)).config_file


def _read(flag: Flag, given: Given) -> Any:
    if given.problem is not None:
        raise given.problem
    if flag.kind is not FlagKind.MANY:
        text = given.texts[-1]
        if not text and not flag.may_be_empty:
            raise ConfigError(given.name, text, f"a value is missing, such as {flag.default}")
        return _read_one(flag, given, text)
    if not any(given.texts):
        if flag.instead_of_empty:
            raise ConfigError(given.name, "", flag.instead_of_empty)
        if flag.may_be_empty:
            return ()
    read = [_read_one(flag, given, text) for text in _split(flag, given.texts)]
    return tuple(dict.fromkeys(read))  # the same one twice is the same one


def _means(in_effect: Mapping[str, Any], flag: Flag, overridden: Given, wrong: list[str]) -> bool:
    """Whether an overridden value says the same; what cannot be used of it goes into ``wrong``."""
    try:
        return _fields(flag, _read(flag, overridden)) == in_effect
    except ConfigError as error:
        wrong.append(str(error))
        return False


def _split(flag: Flag, texts: Sequence[str]) -> Iterator[str]:
    for text in texts:
        items = [item.strip() for item in text.split(",")]
        yield from join_options(items) if flag.has_options else items


def _read_one(flag: Flag, given: Given, text: str) -> Any:
    try:
        return flag.read(text)
    except ValueError as error:
        whole = ",".join(given.texts) if flag.kind is FlagKind.MANY else text
        if is_quoted(whole) or is_quoted(text):
            raise ConfigError(given.name, whole, WITHOUT_QUOTES) from None
        expected = _missing_commas(flag, text) or str(error)
        raise ConfigError(given.name, text, expected) from None


def _missing_commas(flag: Flag, text: str) -> str:
    """What to say of a list separated by spaces or semicolons; "" if ``text`` is none."""
    items = text.replace(";", " ").split()
    if flag.kind is not FlagKind.MANY or len(items) < 2:
        return ""
    return f"expected commas between the values, as in {quote(','.join(items))[1:-1]}"


def _fields(flag: Flag, value: Any) -> dict[str, Any]:
    """What a flag's value is called in Config."""
    match flag.name:
        case "endpoints":
            return {"endpoints": _merge_targets(value), "endpoints_given": True}
        case "discovery-refresh":
            return {"discovery_refresh": value[0], "discovery_refresh_s": value[1]}
        case _:
            return {flag.field: value}


def _merge_targets(read: Sequence[tuple[Address, bool]]) -> tuple[StaticTarget, ...]:
    """One target per address; ``https://`` anywhere makes it a TLS one."""
    tls: dict[Address, bool] = {}
    for address, secure in read:
        tls[address] = secure or tls.get(address, False)
    return tuple(StaticTarget(address, secure) for address, secure in tls.items())
