"""Messages as lines of JSON, and back: the one place that knows the encoding.

Decoding is strict: an unknown type, a missing or an extra field, or a wrong type is a WireError
that says which, because both ends are the same release and anything else is a bug.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any

import orjson

from gateway.core import messages

MAX_LINE_BYTES = 16 * 1024 * 1024
"""One message at most; 3,000 endpoints with eight addresses each are about 1 MB."""


class WireError(Exception):
    """A line that is no message of ours; the text names the line's start or the field."""


_TYPES: dict[str, type] = {
    kind.__name__: kind for kind in typing.get_args(messages.Down) + typing.get_args(messages.Up)
}


def encode(message: messages.Down | messages.Up) -> bytes:
    """One message as one line, newline included; WireError if it exceeds MAX_LINE_BYTES."""
    fields = {f.name: getattr(message, f.name) for f in dataclasses.fields(message)}
    line = orjson.dumps({"type": type(message).__name__} | fields, option=orjson.OPT_APPEND_NEWLINE)
    if len(line) > MAX_LINE_BYTES:
        raise WireError(f"{type(message).__name__} of {len(line)} bytes, at most {MAX_LINE_BYTES}")
    return line


def decode(line: bytes) -> messages.Down | messages.Up:
    """One line back to its message; raises WireError, never anything else."""
    try:
        document = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise WireError(f"not JSON ({error}): {line[:80]!r}") from None
    if not isinstance(document, dict):
        raise WireError(f"not an object: {line[:80]!r}")
    name = document.pop("type", None)
    kind = _TYPES.get(name) if isinstance(name, str) else None
    if kind is None:
        raise WireError(f"unknown message type {name!r}")
    message: messages.Down | messages.Up = _decoder(kind)(document, str(name))
    return message


class LineReader:
    """Cuts a byte stream into lines; a line longer than the cap raises WireError.

    Feed it what was read; it yields whole lines without their newline and keeps the rest.
    """

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._rest = bytearray()
        self._max = max_line_bytes

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._rest += data
        if b"\n" in data:
            *lines, rest = bytes(self._rest).split(b"\n")
            self._rest = bytearray(rest)
            yield from lines
        if len(self._rest) > self._max:
            raise WireError(f"a line of more than {self._max} bytes")


Decoder = Callable[[Any, str], Any]


@functools.cache
def _decoder(hint: Any) -> Decoder:
    """The function that checks a JSON value against a type hint and converts it."""
    if dataclasses.is_dataclass(hint):
        return _dataclass_decoder(typing.cast("type", hint))
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _enum_decoder(hint)
    origin = typing.get_origin(hint)
    if origin is tuple:
        item = _decoder(typing.get_args(hint)[0])
        return lambda value, where: tuple(
            item(each, f"{where}[{i}]") for i, each in enumerate(_checked(value, list, where))
        )
    if origin is dict:
        item = _decoder(typing.get_args(hint)[1])
        return lambda value, where: {
            key: item(each, f"{where}[{key!r}]")
            for key, each in _checked(value, dict, where).items()
        }
    if origin in (typing.Union, types.UnionType):  # only "X | None" occurs
        some = _decoder(next(arg for arg in typing.get_args(hint) if arg is not type(None)))
        return lambda value, where: None if value is None else some(value, where)
    if hint is float:
        return lambda value, where: float(_checked(value, (int, float), where))
    return lambda value, where: _checked(value, hint, where)


def _checked(value: Any, kind: Any, where: str) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        wanted = kind.__name__ if isinstance(kind, type) else "number"
        raise WireError(f"{where}: expected {wanted}, got {value!r:.80}")
    return value


def _enum_decoder(kind: type[enum.Enum]) -> Decoder:
    def convert(value: Any, where: str) -> enum.Enum:
        try:
            return kind(value)
        except ValueError:
            raise WireError(f"{where}: {value!r:.80} is no {kind.__name__}") from None

    return convert


def _dataclass_decoder(kind: type) -> Decoder:
    hints = typing.get_type_hints(kind)
    decoders = {f.name: _decoder(hints[f.name]) for f in dataclasses.fields(kind)}
    required = {
        f.name
        for f in dataclasses.fields(kind)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }

    def convert(value: Any, where: str) -> Any:
        document = _checked(value, dict, where)
        if extra := document.keys() - decoders.keys():
            raise WireError(f"{where}: unknown field {min(extra)!r}")
        if missing := required - document.keys():
            raise WireError(f"{where}: field {min(missing)!r} is missing")
        return kind(
            **{key: decoders[key](each, f"{where}.{key}") for key, each in document.items()}
        )

    return convert
