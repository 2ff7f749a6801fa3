"""Addresses as operators write them: ``host:port``, ``[v6]:port``, ``:port``, ``unix:/path``.

Every ``ValueError`` says what was expected; whoever catches it names the flag and the value.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from gateway.core.records import dataclass
from gateway.core.socket_address import join_host_port
from gateway.core.unix_address import (
    PREFIX,
    UnixAddress,
    check_length,
    is_option,
    is_unix,
    parse_unix,
    parse_unix_listen,
)

MAX_NAME_LENGTH = 253
"""Characters of a DNS name without its trailing dot, RFC 1035 section 2.3.4."""

_BROADCAST = ipaddress.IPv4Address("255.255.255.255")
_SCHEME = r"([A-Za-z][A-Za-z0-9+.-]*)://"
_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_PORT_DIGITS = 5
_PORT_EXPECTED = "expected a port, a number from 1 to 65535"


@dataclass(frozen=True, slots=True)
class HostPort:
    """A host (name in lower case without a trailing dot, or a literal IP) and a port, 1..65535.

    An empty ``host`` means all interfaces, both families; only listen addresses may have it.
    ``absolute``: the name was written with a trailing dot, so no search list applies to it.
    """

    host: str
    port: int
    absolute: bool = False

    def __str__(self) -> str:
        return join_host_port(self.host, self.port)


Address = HostPort | UnixAddress
"""Where to listen, and what to dial."""


def tcp_only(addresses: Iterable[Address]) -> tuple[HostPort, ...]:
    """Those that are a host and a port."""
    return tuple(each for each in addresses if isinstance(each, HostPort))


def parse_endpoint(text: str) -> tuple[Address, bool]:
    """``unix:/path``, or as :func:`parse_tcp_endpoint`."""
    if is_unix(text):
        return parse_unix(text), False
    _refuse_without_prefix(text)
    _refuse_option(text)
    return parse_tcp_endpoint(text)


def parse_tcp_endpoint(text: str) -> tuple[HostPort, bool]:
    """``host:port`` with an optional scheme, and whether that scheme was ``https``.

    ``http://`` and ``https://`` are stripped (with a lone slash at the end); others are refused.
    """
    rest, tls = text, False
    if scheme := _find_scheme(text):
        name = scheme[1].lower()
        if name not in ("http", "https"):
            raise ValueError(f"{name}:// is not supported, expected host:port")
        rest, tls = text[scheme.end() :].removesuffix("/"), name == "https"
    _refuse_path(rest, scheme[0] if scheme else "")
    if rest.isdigit():
        raise ValueError(f"the host is missing, expected host:port{_meant(f'127.0.0.1:{rest}')}")
    address = _split(rest)
    if not address.host:
        raise ValueError("the host is missing, expected host:port")
    return address, tls


def _find_scheme(text: str) -> re.Match[str] | None:
    return re.match(_SCHEME, text) if "://" in text else None


def parse_listen(text: str) -> Address:
    """``host:port``, ``:port``, which is all interfaces, or ``unix:/path`` with its options."""
    if is_unix(text):
        return parse_unix_listen(text)
    if is_option(text):
        raise ValueError("an option belongs right behind its address, as unix:/path,mode=0660")
    _refuse_without_prefix(text)
    return parse_tcp_listen(text)


def parse_tcp_listen(text: str) -> HostPort:
    """``host:port`` or ``:port``."""
    if _find_scheme(text):
        raise ValueError("expected host:port or :port, without a scheme")
    if text.isdigit():
        meant = _meant(f"127.0.0.1:{text}", f":{text} (all interfaces)")
        raise ValueError(f"expected host:port or :port{meant}")
    if text.startswith("*:"):  # as HAProxy and nginx take it
        raise ValueError(f"expected host:port or :port{_meant(text[1:])}")
    address = _split(text)
    if is_of_no_host(address.host):
        raise ValueError("expected an address of this host, not one of a group or of all hosts")
    return address


def is_of_no_host(literal: str) -> bool:
    """Whether the literal address is multicast or broadcast: the kernel binds and listens there,
    and no client can connect. Names, and "", are left alone."""
    if literal_ip(literal) is None:
        return False
    address = ipaddress.ip_address(literal)
    return address.is_multicast or address == _BROADCAST


def parse_nameserver(text: str) -> HostPort:
    """``ip``, ``ip:port``, ``[v6]:port``; the port is 53 where none is given."""
    expected = "expected an IP address, ip:port or [v6]:port"
    host, port = text, "53"
    if text.startswith("["):
        inside, bracket, after = text[1:].partition("]")
        if not bracket or (after and not after.startswith(":")):
            raise ValueError(expected)
        host, port = inside, after[1:] if after else port
        if ":" not in host:
            raise ValueError(expected)
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    try:
        literal = _parse_literal(host)
    except ValueError as error:
        raise ValueError(f"{error}, {expected}") from None
    if literal is None:
        raise ValueError(expected)
    return HostPort(literal, _parse_port(port))


def parse_network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """A network in CIDR notation, or one address."""
    if "%" in text:
        raise ValueError("a scope id (%interface) is not supported")
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        if "host bits" in str(error):
            raise ValueError(
                f"the address is not the network's, expected {ipaddress.ip_network(text, False)}"
            ) from None
        raise ValueError("expected a network such as 10.0.0.0/8 or fd00::/8") from None


def parse_admin(text: str) -> str:
    """``host:port``, ``:port`` or ``unix:/path``, in one spelling."""
    if not text.startswith("unix:"):
        _refuse_without_prefix(text)
        _refuse_option(text)
        return str(parse_tcp_listen(text))
    path = "/" + text.removeprefix("unix:").removeprefix("//").lstrip("/")
    if not text.removeprefix("unix:").startswith("/") or path.endswith("/"):
        raise ValueError("expected unix: and the absolute path of a socket, as unix:/run/name.sock")
    if not path.isprintable():  # it stands in log lines and tables
        raise ValueError("expected a path of printable characters")
    check_length(path)
    return f"unix:{path}"


def split_admin(admin_addr: str) -> Address:
    """An admin address as :func:`parse_admin` spells it, taken apart."""
    if is_unix(admin_addr):
        return UnixAddress(admin_addr.removeprefix(PREFIX))
    host, _, port = admin_addr.rpartition(":")
    return HostPort(host.strip("[]"), int(port))


def parse_name(text: str) -> str:
    """A DNS name in lower case without a trailing dot; underscores may begin a label (SRV)."""
    if not text.isascii():
        raise ValueError("expected a host name in ASCII; write international names as xn--...")
    name = text.lower().removesuffix(".")
    if not name or len(name) > MAX_NAME_LENGTH:
        raise ValueError(f"expected a host name of 1 to {MAX_NAME_LENGTH} characters")
    if not all(re.fullmatch(_LABEL, label) for label in name.split(".")):
        raise ValueError("expected a host name of letters, digits, dots, dashes and underscores")
    return name


def literal_ip(text: str) -> str | None:
    """The one spelling of a literal IP; None if the text is none.

    An IPv4-mapped IPv6 address becomes the IPv4 address that it stands for. One with a scope
    (``%eth0``) is none: whoever dials it would have to look the interface up.
    """
    # Most names are told by their last character: of thousands, ipaddress would hold the loop.
    if "%" in text or not (":" in text or text[-1:].isdigit()):
        return None
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _split(text: str) -> HostPort:
    """``host:port``, ``[v6]:port`` or ``:port``; the host may be empty."""
    if text.startswith("["):
        inside, bracket, after = text[1:].partition("]")
        if not bracket or ":" not in inside:
            raise ValueError("expected an IPv6 address between the brackets, as [::1]:2379")
        if not after.startswith(":"):
            raise ValueError(f"{_missing_port(after)}, as [::1]:2379")
        return HostPort(_parse_host(inside), _parse_port(after[1:]))
    host, colon, port = text.rpartition(":")
    if not colon:
        raise ValueError("the port is missing, expected host:port")
    if ":" in host:
        bare, _, first = host.rpartition(":")
        if bare and first and ":" not in bare:
            meant = _meant(host) if first == port else ""
            raise ValueError(f"expected host:port, with one port{meant}")
        meant = _meant(f"[{host}]:{port}")
        raise ValueError(f"an IPv6 address needs brackets, expected [v6]:port{meant}")
    absolute = host.endswith(".")
    return HostPort(_parse_host(host) if host else "", _parse_port(port), absolute)


def _refuse_path(rest: str, scheme: str) -> None:
    address, slash, _ = rest.partition("/")
    if slash:
        meant = _meant(address, prefix=scheme)
        raise ValueError(f"a path has no meaning here, expected host:port{meant}")


def _refuse_without_prefix(text: str) -> None:
    """A path alone, as other programs take it for a UNIX socket."""
    if text.startswith("/"):
        meant = parse_unix(f"unix:{text}")
        raise ValueError(f"expected unix: before the path of a socket, did you mean {meant}?")


def _refuse_option(text: str) -> None:
    """An item of a list that was split at its commas, where no address has options."""
    if is_option(text):
        raise ValueError("only a listen address has options, expected an address")


def _meant(*addresses: str, prefix: str = "") -> str:
    """The addresses as a question, if what was written as one of them could be used."""
    try:
        _split(addresses[0])
    except ValueError:
        return ""
    return f", did you mean {' or '.join(prefix + each for each in addresses)}?"


def _missing_port(after: str) -> str:
    return "expected a colon and a port after the bracket" if after else "the port is missing"


def _parse_host(text: str) -> str:
    literal = _parse_literal(text)
    if literal is not None:
        return literal
    name = parse_name(text)
    if name.rpartition(".")[2].isdigit():
        # No top-level domain is a number: 10.0.0.256 and 10.1 are slips, not names to look up.
        raise ValueError("expected an IPv4 address of four numbers from 0 to 255, or a host name")
    return name


def _parse_literal(text: str) -> str | None:
    """As literal_ip, but what can only be meant as an IPv6 address must be one, without a scope."""
    if "%" in text:
        raise ValueError("a scope id (%interface) is not supported")
    literal = literal_ip(text)
    if literal is None and ":" in text:
        raise ValueError("that is not an IPv6 address, expected one such as ::1")
    return literal


def _parse_port(text: str) -> int:
    if len(text) > _PORT_DIGITS or not (text.isascii() and text.isdigit()):
        raise ValueError(_PORT_EXPECTED)
    port = int(text)
    if not 1 <= port <= 65535:
        raise ValueError(_PORT_EXPECTED)
    return port
