"""The configuration: every flag as one typed, validated value.

Each flag is taken from the first source that has it: command line, environment, config file.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.core.address import HostPort
from supervisor.core.flags import BY_NAME, FLAGS, Flag, FlagKind

MAX_SHOWN = 200
"""Characters of a wrong value that an error shows."""


class ConfigError(Exception):
    """A value that cannot be used; one line that names the source, the value, the expectation."""

    def __init__(self, source: str, value: str | None, expected: str) -> None:
        shown = source if value is None else f"{source} {quote(value)}"
        super().__init__(f"{shown}: {expected}")


@dataclass(frozen=True, slots=True)
class StaticTarget:
    """One of ``--endpoints``: ``tls`` if it was given with ``https://``."""

    address: HostPort
    tls: bool = False


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
    listen_addr: tuple[HostPort, ...] = (HostPort("127.0.0.1", 23790),)
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
    max_sessions: int = 0
    balance: str = "round-robin"
    on_inactive: str = "keep"
    removal_grace_s: float = 30.0
    nameserver: tuple[HostPort, ...] = ()
    discovery_refresh: str = "ttl"
    """``ttl``, ``off``, or ``fixed`` with ``discovery_refresh_s``."""
    discovery_refresh_s: float = 0.0
    health_check: str = "auto"
    health_path: str = "/health"
    health_interval_s: float = 5.0
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
    log_level: str = "info"
    log_format: str = "auto"
    access_log: bool = False
    config_file: str = ""


def build(
    flags: Mapping[str, Sequence[str]],
    environ: Mapping[str, str],
    document: Mapping[str, Any],
    *,
    document_name: str = "the config file",
    only: Collection[str] = BY_NAME.keys(),
) -> Config:
    """The configuration that these sources say together; raises ConfigError.

    ``flags`` has the texts of each flag that was given, by name; ``document`` is the config file.
    An empty variable counts as not set. Flags that are not in ``only`` keep their default.
    """
    _refuse_unknown(document, document_name)
    fields: dict[str, Any] = {}
    sources: dict[str, _Source] = {}
    for flag in FLAGS:
        if flag.name not in only:
            continue
        source = _find(flag, flags, environ, document, document_name)
        if source is None:
            continue
        sources[flag.name] = source
        fields |= _fields(flag, _read(flag, source))
    _check_together(fields, sources)
    return Config(**fields)


def find_config_file(flags: Mapping[str, Sequence[str]], environ: Mapping[str, str]) -> str:
    """The path of the config file, or an empty string."""
    return build(flags, environ, {}, only=("config-file",)).config_file


def quote(text: str) -> str:
    """A value as an error shows it: in quotes, on one line, not endless."""
    if len(text) > MAX_SHOWN:
        text = text[:MAX_SHOWN] + "…"
    plain = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
    return f'"{plain}"'


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a flag's value is from, as the operator knows it, and the texts it has there."""

    name: str
    texts: tuple[str, ...]


def _refuse_unknown(document: Mapping[str, Any], document_name: str) -> None:
    for key in document:
        if key == "config-file":
            raise ConfigError(f"{quote(key)} in {document_name}", None, "not possible in the file")
        if key not in BY_NAME:
            expected = "unknown key, expected a flag's name without the dashes in front"
            if (name := key.strip().lstrip("-").replace("_", "-").lower()) in BY_NAME:
                expected = f"unknown key, expected {name}"
            raise ConfigError(f"{quote(key)} in {document_name}", None, expected)


def _find(
    flag: Flag,
    flags: Mapping[str, Sequence[str]],
    environ: Mapping[str, str],
    document: Mapping[str, Any],
    document_name: str,
) -> _Source | None:
    if texts := flags.get(flag.name):
        return _Source(f"--{flag.name}", tuple(texts))
    if text := environ.get(flag.variable):
        return _Source(flag.variable, (text,))
    if flag.name in document:
        name = f"{flag.name} in {document_name}"
        return _Source(name, _texts_of(flag, name, document[flag.name]))
    return None


def _texts_of(flag: Flag, source: str, value: Any) -> tuple[str, ...]:
    """A value of the config file as the text it would have as a flag."""
    match value:
        case bool():
            return (str(value).lower(),)
        case str() | int() | float():
            return (str(value),)
        case list() if flag.kind is FlagKind.MANY:
            for each in value:
                if not isinstance(each, str):
                    raise ConfigError(source, str(each), "expected a list of strings")
            return tuple(value) or ("",)
        case _:
            expected = (
                "a string or a list of strings" if flag.kind is FlagKind.MANY else "one value"
            )
            raise ConfigError(source, str(value), f"expected {expected}")


def _read(flag: Flag, source: _Source) -> Any:
    if flag.kind is not FlagKind.MANY:
        text = source.texts[-1]
        if not text and not flag.may_be_empty:
            raise ConfigError(source.name, text, f"a value is missing, as {flag.default}")
        return _read_one(flag, source, text)
    if flag.may_be_empty and not any(source.texts):
        return ()
    read = [_read_one(flag, source, text) for text in _split(source.texts)]
    return tuple(dict.fromkeys(read))  # the same one twice is the same one


def _split(texts: Sequence[str]) -> Iterator[str]:
    for text in texts:
        for item in text.split(","):
            yield item.strip()


def _read_one(flag: Flag, source: _Source, text: str) -> Any:
    try:
        return flag.read(text)
    except ValueError as error:
        raise ConfigError(source.name, text, str(error)) from None


def _fields(flag: Flag, value: Any) -> dict[str, Any]:
    """What a flag's value is called in Config."""
    match flag.name:
        case "endpoints":
            return {"endpoints": _merge_targets(value), "endpoints_given": True}
        case "discovery-refresh":
            return {"discovery_refresh": value[0], "discovery_refresh_s": value[1]}
        case _:
            return {flag.field: value}


def _merge_targets(read: Sequence[tuple[HostPort, bool]]) -> tuple[StaticTarget, ...]:
    """One target per address; ``https://`` anywhere makes it a TLS one."""
    tls: dict[HostPort, bool] = {}
    for address, secure in read:
        tls[address] = secure or tls.get(address, False)
    return tuple(StaticTarget(address, secure) for address, secure in tls.items())


def _check_together(fields: Mapping[str, Any], sources: Mapping[str, _Source]) -> None:
    """What no flag can tell alone."""

    def refuse(name: str, expected: str) -> None:
        raise ConfigError(sources[name].name, sources[name].texts[-1], expected)

    if fields.get("discovery_srv_name"):
        domain = fields.get("discovery_srv", "")
        if not domain:
            refuse("discovery-srv-name", "expected --discovery-srv beside it")
        if domain.startswith("_"):
            refuse("discovery-srv-name", "cannot go with a full record name in --discovery-srv")
    for name, other in (
        ("health-cert-file", "health-key-file"),
        ("health-key-file", "health-cert-file"),
    ):
        if fields.get(BY_NAME[name].field) and not fields.get(BY_NAME[other].field):
            refuse(name, f"expected --{other} beside it")
