"""Reading the values of flags: each reader turns one text into a value.

A reader raises ValueError with what was expected, and with what was probably meant.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Any

from gateway.core.address import (
    MAX_NAME_LENGTH,
    is_of_no_host,
    literal_ip,
    parse_endpoint,
    parse_name,
    parse_network,
)
from gateway.core.messages import MAX_SLOTS
from supervisor.core.duration import format_duration, parse_duration
from supervisor.core.spelling import nearest

Read = Callable[[str], Any]

_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_PLAIN_NETWORK = re.compile(rf"({_OCTET}(?:\.{_OCTET}){{3}})/(3[0-2]|[12]?[0-9])")
"""An IPv4 network in its usual spelling, perhaps with host bits."""

_ALL_ONES = 0xFFFF_FFFF

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


def choice(*words: str) -> Read:
    def read(text: str) -> str:
        if text not in words:
            expected = "expected " + ", ".join(words[:-1]) + f" or {words[-1]}"
            meant = nearest(text.lower(), words) or SYNONYMS.get(text.lower(), "")
            raise ValueError(expected + (f", did you mean {meant}?" if meant in words else ""))
        return text

    return read


def whole(least: int, most: int, zero: str = "") -> Read:
    """A number in a range; ``zero`` says what 0 means where it has a meaning."""

    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", text) or not least <= int(text) <= most:
            hint = f"; 0: {zero}" if zero and is_word(text) else ""
            raise ValueError(f"expected a whole number from {least} to {most}{hint}")
        return int(text)

    return read


def is_word(text: str) -> bool:
    """Whether it may be another program's word for zero, such as off, never or unlimited."""
    return not re.search(r"[0-9]", text)


def duration(least_s: float, most_s: float = float("inf"), zero: str = "") -> Read:
    """Seconds in a range; ``zero`` says what 0 means where it has a meaning."""

    def read(text: str) -> float:
        try:
            seconds = parse_duration(text)
        except ValueError as error:
            hint = f", or 0s: {zero}" if zero and is_word(text) else ""
            raise ValueError(f"{error}{hint}") from None
        if seconds == 0 and zero:
            return seconds
        if not least_s <= seconds <= most_s:
            low = f"at least {format_duration(least_s)}"
            high = f" and at most {format_duration(most_s)}" if most_s != float("inf") else ""
            raise ValueError(f"expected {low}{high}" + (f", or 0s: {zero}" if zero else ""))
        return seconds

    return read


def workers(text: str) -> int:
    if text == "auto":
        return 0
    try:
        return int(whole(1, MAX_SLOTS)(text))
    except ValueError as error:
        raise ValueError(f"{error}, or auto") from None


def refresh(text: str) -> tuple[str, float]:
    if text in ("ttl", "off"):
        return text, 0.0
    try:
        return "fixed", float(duration(0.1)(text))
    except ValueError as error:
        raise ValueError(f"{error}; or one of ttl, off") from None


def member_sync(text: str) -> float:
    if text == "off":
        return 0.0
    try:
        return float(duration(0.1)(text))
    except ValueError as error:
        raise ValueError(f"{error}; or off") from None


def switch(text: str) -> bool:
    # The words of Go's strconv.ParseBool, which etcd gateway's flags take.
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    meant = {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(text.lower(), "")
    raise ValueError("expected true or false" + (f", did you mean {meant}?" if meant else ""))


def srv_suffix(text: str) -> str:
    if text and not re.fullmatch(r"[A-Za-z0-9_-]{1,46}", text):
        # 46: _etcd-client-ssl-NAME is one label of at most 63 characters.
        raise ValueError("expected letters, digits, dashes or underscores, at most 46 of them")
    return text.lower()


def srv_domain(text: str) -> str:
    if not text:
        return ""
    bare = re.sub(r"^[A-Za-z]+://|(:[0-9]+)?/?$", "", text)
    if bare not in ("", text):
        meant = srv_domain(bare)
        raise ValueError(f"expected a domain without a scheme and a port, did you mean {meant}?")
    name = parse_name(text)
    if re.fullmatch(r"[0-9.]+", name):
        raise ValueError("expected a domain; IP addresses go to --endpoints")
    if all(label.startswith("_") for label in name.removesuffix(".").split(".")):
        raise ValueError("expected a domain behind it, as in _postgresql._tcp.example.com")
    longest = MAX_NAME_LENGTH - len("_etcd-client-ssl._tcp.")
    if not name.startswith("_") and len(name) > longest:
        raise ValueError(f"expected a domain of at most {longest} characters")
    return name


def file_path(text: str) -> str:
    if "\0" in text:
        raise ValueError("expected the path of a file")
    return text


def host_seed(text: str) -> str:
    if len(text) > 255 or not text.isprintable():
        raise ValueError("expected at most 255 printable characters, other ones on each host")
    return text


def endpoint_name(text: str) -> str:
    return str(parse_endpoint(text)[0])


def network(text: str) -> str:
    if text == "unix":
        raise ValueError(
            "clients on UNIX sockets are always served; the socket's mode says who may connect"
        )
    # A tenth of the time that ipaddress takes: a reload with 50,000 networks holds the loop.
    if (plain := _PLAIN_NETWORK.fullmatch(text)) and not (
        int.from_bytes(bytes(map(int, plain[1].split(".")))) & _ALL_ONES >> int(plain[2])
    ):
        return text
    return str(parse_network(text))


def proxy_peer(text: str) -> str:
    if text == "unix":
        return text
    try:
        return network(text)
    except ValueError as error:
        raise ValueError(f"{error}, or unix") from None


def source_address(text: str) -> str:
    expected = "expected an IP address of this host, without a port"
    literal = literal_ip(text)
    if literal is None:
        raise ValueError(expected)
    address = ipaddress.ip_address(literal)
    if address.is_unspecified or is_of_no_host(literal):
        raise ValueError(expected)
    if address.version == 6 and address.is_link_local:
        # It means nothing without its interface, and a scope id is not supported.
        raise ValueError(f"{expected}, that is not link-local")
    return literal


def percent(text: str) -> int:
    expected = "expected a percentage from 0% to 100%"
    if re.fullmatch(r"[0-9]{1,3}", text) and int(text) <= 100:
        raise ValueError(f"the sign is missing, {expected}, did you mean {int(text)}%?")
    if not re.fullmatch(r"[0-9]{1,3}%", text) or int(text[:-1]) > 100:
        raise ValueError(expected)
    return int(text[:-1])


def health_port(text: str) -> int:
    return int(whole(1, 65535)(text)) if text else 0


def http_path(text: str) -> str:
    if not re.fullmatch(r"/[!-~]{0,1023}", text):
        raise ValueError("expected a path that begins with a slash, in ASCII without spaces")
    return text


KEEPALIVE = duration(1, 32767)  # whole seconds from 1 to 32767, MAX_TCP_KEEPIDLE in Linux
