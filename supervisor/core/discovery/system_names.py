"""The system's own name configuration: ``/etc/hosts`` and ``/etc/resolv.conf``.

Both are read as the C library reads them: lines that make no sense are ignored.
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway.core.address import literal_ip
from gateway.core.records import dataclass

LOCAL_NAMESERVER = ("127.0.0.1",)
MAX_NAMESERVERS = 3
MAX_TIMEOUT_S = 30
MAX_ATTEMPTS = 5
MAX_NDOTS = 15
"""The C library's own limits and its default nameserver, resolv.conf(5)."""


@dataclass(frozen=True, slots=True)
class Files:
    """Where the system's name configuration is, and what is not in a file."""

    hosts: str = "/etc/hosts"
    resolv_conf: str = "/etc/resolv.conf"
    domain: str | None = None
    """The domain to search where resolv.conf names none; None: that of the host's own name."""
    port: int = 53
    """Of the nameservers in resolv.conf, which cannot name one."""


@dataclass(frozen=True, slots=True)
class ResolvConf:
    """What resolv.conf says, with the C library's defaults.

    ``timeout_s`` is for one query to one nameserver; all of them are asked ``attempts`` times.
    ``use_tcp``: never ask over UDP. ``no_aaaa``: ask for IPv4 addresses only.
    ``single_request``: ask for IPv6 addresses after those of IPv4 instead of together.
    """

    nameservers: tuple[str, ...] = LOCAL_NAMESERVER
    search: tuple[str, ...] = ()
    ndots: int = 1
    timeout_s: float = 5.0
    attempts: int = 2
    rotate: bool = False
    use_tcp: bool = False
    no_aaaa: bool = False
    single_request: bool = False


def parse_resolv_conf(
    text: str, *, domain: str = "", local_domain: str = "", extra_options: str = ""
) -> ResolvConf:
    """resolv.conf(5): the last of ``domain`` and ``search`` counts.

    ``domain`` is searched if the file names none. ``local_domain`` and ``extra_options`` are the
    variables LOCALDOMAIN and RES_OPTIONS: the first replaces the file's search list, the second
    adds options.
    """
    nameservers: list[str] = []
    search: tuple[str, ...] = (domain,)
    options: list[str] = []
    for line in text.splitlines():
        if line[:1].isspace():
            continue  # the C library looks for keywords at the beginning of a line only
        match line.split():
            case ["nameserver", address, *_] if _is_nameserver(address):
                nameservers.append(address)
            case ["domain", name, *_]:
                search = (_name(name),)
            case ["search", _, *_] as words:
                search = tuple(_name(name) for name in words[1:])
            case ["options", *words]:
                options += words
    if local_domain.split():
        search = tuple(_name(name) for name in local_domain.split())
    options += extra_options.split()
    return ResolvConf(
        nameservers=tuple(nameservers[:MAX_NAMESERVERS]) or LOCAL_NAMESERVER,
        search=tuple(name for name in search if name),
        ndots=_option(options, "ndots", 1, MAX_NDOTS),
        timeout_s=float(max(_option(options, "timeout", 5, MAX_TIMEOUT_S), 1)),
        attempts=max(_option(options, "attempts", 2, MAX_ATTEMPTS), 1),
        rotate="rotate" in options,
        use_tcp="use-vc" in options,
        no_aaaa="no-aaaa" in options,
        single_request=not {"single-request", "single-request-reopen"}.isdisjoint(options),
    )


def names_to_try(host: str, conf: ResolvConf) -> tuple[str, ...]:
    """The absolute names that a name as an operator wrote it may stand for, in order."""
    searched = tuple(f"{host}.{suffix}" for suffix in conf.search)
    as_is_first = host.count(".") >= conf.ndots
    names = (host, *searched) if as_is_first else (*searched, host)
    return tuple(dict.fromkeys(names))


class HostsTable:
    """hosts(5): addresses by name; a name may stand on several lines.

    A line whose address has a scope (``fe80::1%eth0``) is skipped, as the C library does.

    Made for block lists, which have 100,000 names and few addresses: each address is parsed and
    kept once.
    """

    def __init__(self) -> None:
        self._addresses: dict[str, tuple[str, ...]] = {}
        self._literals: dict[str, tuple[str, ...]] = {}

    def add(self, lines: Iterable[str]) -> None:
        """Take more lines of the file."""
        for line in lines:
            address, *names = line.partition("#")[0].split() or [""]
            if not names:
                continue
            if address not in self._literals:
                literal = literal_ip(address)
                self._literals[address] = (literal,) if literal else ()
            for name in names if (new := self._literals[address]) else ():
                key = _name(name)
                old = self._addresses.setdefault(key, new)
                if new[0] not in old:
                    self._addresses[key] = old + new

    def addresses(self, name: str) -> tuple[str, ...]:
        """The literal addresses of a name in lower case without a trailing dot."""
        return self._addresses.get(name, ())


def _name(text: str) -> str:
    return text.lower().removesuffix(".")


def _is_nameserver(text: str) -> bool:
    """Whether it is a literal IP; here alone, one of IPv6 may have a scope (``fe80::1%eth0``)."""
    host, percent, scope = text.partition("%")
    scoped = not percent or (":" in host and scope != "" and "%" not in scope)
    return scoped and literal_ip(host) is not None


def _option(options: list[str], name: str, default: int, most: int) -> int:
    """The last ``name:n`` among the options, at most ``most``."""
    value = default
    for option in options:
        key, _, number = option.partition(":")
        if key == name and number.isdecimal() and len(number) < 9:
            value = min(int(number), most)
    return value
