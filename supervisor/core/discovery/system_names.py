"""The system's own name configuration: ``/etc/hosts`` and ``/etc/resolv.conf``.

Both are read as the C library reads them: lines that make no sense are ignored.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.core.address import literal_ip

LOCAL_NAMESERVER = ("127.0.0.1",)
MAX_NAMESERVERS = 3
MAX_TIMEOUT_S = 30
MAX_ATTEMPTS = 5
MAX_NDOTS = 15
"""The C library's own limits and its default nameserver, resolv.conf(5)."""


@dataclass(frozen=True, slots=True)
class Files:
    """Where the system's name configuration is."""

    hosts: str = "/etc/hosts"
    resolv_conf: str = "/etc/resolv.conf"


@dataclass(frozen=True, slots=True)
class ResolvConf:
    """What resolv.conf says, with the C library's defaults.

    ``timeout_s`` is for one question to one nameserver, ``attempts`` rounds over all of them.
    """

    nameservers: tuple[str, ...] = LOCAL_NAMESERVER
    search: tuple[str, ...] = ()
    ndots: int = 1
    timeout_s: float = 5.0
    attempts: int = 2
    rotate: bool = False


def parse_resolv_conf(text: str) -> ResolvConf:
    """resolv.conf(5): the last of ``domain`` and ``search`` counts."""
    nameservers: list[str] = []
    search: tuple[str, ...] = ()
    options: list[str] = []
    for line in text.splitlines():
        match line.split():
            case ["nameserver", address, *_] if literal_ip(address):
                nameservers.append(address)
            case ["domain", name, *_]:
                search = (_name(name),)
            case ["search", *names]:
                search = tuple(_name(name) for name in names)
            case ["options", *words]:
                options += words
    return ResolvConf(
        nameservers=tuple(nameservers[:MAX_NAMESERVERS]) or LOCAL_NAMESERVER,
        search=tuple(name for name in search if name),
        ndots=_option(options, "ndots", 1, MAX_NDOTS),
        timeout_s=float(max(_option(options, "timeout", 5, MAX_TIMEOUT_S), 1)),
        attempts=max(_option(options, "attempts", 2, MAX_ATTEMPTS), 1),
        rotate="rotate" in options,
    )


def names_to_try(host: str, conf: ResolvConf) -> tuple[str, ...]:
    """The absolute names that a name as an operator wrote it may stand for, in order."""
    searched = tuple(f"{host}.{suffix}" for suffix in conf.search)
    if host.count(".") >= conf.ndots:
        return (host, *searched)
    return (*searched, host)


def parse_hosts(text: str) -> dict[str, tuple[str, ...]]:
    """hosts(5): addresses by name, in lower case; a name may stand on several lines."""
    found: dict[str, dict[str, None]] = {}
    for line in text.splitlines():
        address, *names = line.partition("#")[0].split() or [""]
        if ip := literal_ip(address):
            for name in names:
                found.setdefault(_name(name), {})[ip] = None
    return {name: tuple(ips) for name, ips in found.items()}


def _name(text: str) -> str:
    return text.lower().removesuffix(".")


def _option(options: list[str], name: str, default: int, most: int) -> int:
    """The last ``name:n`` among the options, at most ``most``."""
    value = default
    for option in options:
        key, _, number = option.partition(":")
        if key == name and number.isdecimal() and len(number) < 9:
            value = min(int(number), most)
    return value
