"""Rules that concern more than one flag, or more than one value of a flag.

Each raises ConfigError, which names the place that the value came from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.core.address import Address, HostPort, literal_ip, split_admin, tcp_only
from gateway.core.unix_address import UnixAddress
from supervisor.core.config_error import ConfigError
from supervisor.core.config_sources import Given
from supervisor.core.flags import BY_NAME
from supervisor.core.listening import are_apart, find_overlap


def check_together(fields: Mapping[str, Any], used: Mapping[str, Given]) -> None:
    """Refuse what does not go together; ``fields`` are those of Config, of flags that are set."""

    def refuse(name: str, expected: str) -> None:
        raise ConfigError(used[name].name, used[name].texts[-1], expected)

    if fields.get("discovery_srv_name"):
        domain = fields.get("discovery_srv", "")
        if not domain:
            refuse("discovery-srv-name", "expected --discovery-srv beside it")
        if domain.startswith("_"):
            refuse("discovery-srv-name", "cannot go with a full record name in --discovery-srv")
    families = [":" in address for address in fields.get("source_addr", ())]
    if len(families) != len(set(families)):
        refuse("source-addr", "expected one address for each family")
    for name, other in (
        ("health-cert-file", "health-key-file"),
        ("health-key-file", "health-cert-file"),
    ):
        if fields.get(BY_NAME[name].field) and not fields.get(BY_NAME[other].field):
            refuse(name, f"expected --{other} beside it")
    paths = [a.path for a in fields.get("listen_addr", ()) if isinstance(a, UnixAddress)]
    if len(set(paths)) < len(paths):
        refuse("listen-addr", "expected each path once, with one mode and one group")
    _check_apart("listen-addr", tcp_only(fields.get("listen_addr", ())), used)


def _check_apart(name: str, addresses: Sequence[HostPort], used: Mapping[str, Given]) -> None:
    """Refuse an address that another one includes: the error of its bind would blame another
    program."""
    if (overlap := find_overlap(addresses)) is not None:
        every, one = map(str, overlap)
        raise ConfigError(used[name].name, one, f"{every} includes it, expected one of the two")


def check_admin(admin: Sequence[str], listen: Sequence[Address], used: Mapping[str, Given]) -> None:
    """Refuse names in ``--admin-addr``: a gateway binds addresses; who asks one may use a name.

    And clients' addresses: the error of the second bind would blame another program.
    """
    before: list[Address] = []
    for text in admin:
        address = split_admin(text)
        if not all(_are_apart(address, each) for each in listen):
            expected = "expected another address than --listen-addr"
        elif isinstance(address, HostPort) and not _can_be_bound(address):
            expected = "expected an IP address of this host, localhost, or unix: and a path"
        elif not all(_are_apart(address, each) for each in before):
            expected = "expected each admin address once"
        else:
            before.append(address)
            continue
        raise ConfigError(used["admin-addr"].name, text, expected)


def _can_be_bound(address: HostPort) -> bool:
    """Whether it is no name that would have to be looked up."""
    return address.host in ("", "localhost") or literal_ip(address.host) is not None


def _are_apart(one: Address, other: Address) -> bool:
    if isinstance(one, UnixAddress) or isinstance(other, UnixAddress):
        return str(one) != str(other)
    return are_apart(one, other)
