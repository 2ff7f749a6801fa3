"""Addresses of UNIX sockets as operators write them: ``unix:/path``, and ``unix:@name``.

``unix:@name`` is a name in the abstract namespace of the network namespace: there is no file.
Every ``ValueError`` says what was expected; whoever catches it names the flag and the value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from gateway.core.records import dataclass

PREFIX = "unix:"
"""What such an address begins with."""

MAX_UNIX_PATH = 107
"""Bytes of a UNIX socket's path: ``sun_path`` is 108 with its closing zero, unix(7)."""

DEFAULT_MODE = 0o660
"""Of a listen address's file: the user and the group of the gateway may connect."""

_MODE = r"0?[0-7]{3}"
_GROUP = r"[^\s,:/=]{1,255}"
_EXPECTED = (
    "expected unix: and the absolute path of a socket, as unix:/run/name.sock, or unix:@name"
)


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A UNIX stream socket; ``path`` is absolute, or begins with ``@`` if it is abstract.

    ``mode`` and ``group`` are those of the file that a listen address makes; an empty group is the
    gateway's own.
    """

    path: str
    mode: int = DEFAULT_MODE
    group: str = ""

    def __str__(self) -> str:
        return PREFIX + self.path

    @property
    def abstract(self) -> bool:
        """Whether there is no file."""
        return self.path.startswith("@")


def is_unix(text: str) -> bool:
    """Whether an address as text is one of a UNIX socket; ``unix:2379`` is a host of that name."""
    return text.startswith(PREFIX) and not text[len(PREFIX) :].isdigit()


def socket_name(address: str) -> str:
    """What the system calls take for ``unix:/path`` or ``unix:@name``."""
    path = address[len(PREFIX) :]
    return "\0" + path[1:] if path.startswith("@") else path


def parse_unix(text: str) -> UnixAddress:
    """``unix:/path`` or ``unix:@name``."""
    path = text.removeprefix(PREFIX)
    if path.startswith("//"):
        meant = "/" + path.lstrip("/")
        raise ValueError(f"unix:// is not supported, {_EXPECTED}, did you mean {PREFIX}{meant}?")
    if not path.startswith(("/", "@")) or path.endswith("/") or path == "@":
        raise ValueError(_EXPECTED)
    if not path.isprintable() or " " in path:
        # It stands in log lines, tables and labels of metrics, and lists are split at commas.
        raise ValueError("expected a path of printable characters, without blanks and commas")
    check_length(path)
    return UnixAddress(path)


def check_length(path: str) -> None:
    """ValueError: no socket address has room for the path."""
    if len(path.encode()) > MAX_UNIX_PATH:
        raise ValueError(f"the path is too long, expected at most {MAX_UNIX_PATH} bytes")


def parse_unix_listen(text: str) -> UnixAddress:
    """The same with the options of a listen address: ``unix:/path,mode=0660,group=name``."""
    address, *options = text.split(",")
    path = parse_unix(address).path
    mode, group = DEFAULT_MODE, ""
    given: set[str] = set()
    for option in options:
        name, _, value = option.partition("=")
        if name in given:
            raise ValueError(f"{name}= is given twice")
        given.add(name)
        match name:
            case "mode" if re.fullmatch(_MODE, value):
                mode = int(value, 8)
            case "mode":
                raise ValueError("expected mode= and three octal digits, as mode=0660")
            case "group" if re.fullmatch(_GROUP, value):
                group = value
            case "group":
                raise ValueError("expected group= and the name or the number of a group")
            case _:
                raise ValueError(f"unknown option {name}=, expected mode= or group=")
    if given and path.startswith("@"):
        raise ValueError("an abstract name has no file, so mode= and group= have no meaning")
    return UnixAddress(path, mode, group)


def is_option(text: str) -> bool:
    """Whether an item of a list is an option and not an address."""
    return "=" in text and re.match(r"[A-Za-z_-]+=", text) is not None


def join_options(items: Iterable[str]) -> Iterator[str]:
    """The items of a list that was split at its commas, options joined to their UNIX address."""
    joined: str | None = None
    for item in items:
        if joined is not None and is_unix(joined) and is_option(item):
            joined += f",{item}"
            continue
        if joined is not None:
            yield joined
        joined = item
    if joined is not None:
        yield joined
