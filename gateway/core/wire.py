"""Messages as lines of JSON, and back: the one place that knows the encoding.

Decoding is strict: an unknown type, a missing field that has no default, an extra one, or a wrong
type is a WireError that says which. Both ends are of one release and anything else is a bug, but
for the moments of an upgrade; then a message that is not understood is left out.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import types
import typing
from collections.abc import Callable, Generator, Iterator
from typing import Any

from gateway.core import json_codec, messages, records
from gateway.core.endpoint import Endpoint

MAX_LINE_BYTES = 16 * 1024 * 1024
"""One message at most; 3,000 endpoints with eight addresses each are about 1 MB."""


STEP = 400
"""Endpoints decoded in one go: 1.6 ms."""


DESCRIPTORS = "descriptors"
"""The field that says how many descriptors belong to a message, of whatever type it is."""

_DESCRIPTORS_MARK = b'"descriptors":'


class WireError(Exception):
    """A line that is no message of ours; the text names the line's start or the field."""


_TYPES: dict[str, type] = {
    kind.__name__: kind for kind in typing.get_args(messages.Down) + typing.get_args(messages.Up)
}


_REQUIRED = object()
"""In the place of a default, where a field has none: no value equals it."""


@functools.cache
def _defaults(kind: type) -> dict[str, Any]:
    """Every field of a dataclass with its default."""

    def default_of(each: dataclasses.Field[Any]) -> Any:
        if each.default_factory is not dataclasses.MISSING:
            return each.default_factory()
        return _REQUIRED if each.default is dataclasses.MISSING else each.default

    return {each.name: default_of(each) for each in dataclasses.fields(kind)}


def prepare() -> None:
    """Make all decoders now: before a fork, the children share them (and 0.5 MB less is copied).

    The dataclasses of a worker likewise: 0.6 MB less.
    """
    records.complete_all("gateway")
    for kind in _TYPES.values():
        _decoder(kind)


def encode(message: messages.Down | messages.Up, *, descriptors: int = 0) -> bytes:
    """One message as one line, newline included; WireError if it exceeds MAX_LINE_BYTES.

    ``descriptors``: how many are sent with it.
    """
    kind: type = type(message)
    fields: dict[str, Any] = {"type": kind.__name__}
    if descriptors:
        fields[DESCRIPTORS] = descriptors
    line = json_codec.dumps_line(fields | _leave_defaults_out(message), _leave_defaults_out)
    if len(line) > MAX_LINE_BYTES:
        raise WireError(f"{kind.__name__} of {len(line)} bytes, at most {MAX_LINE_BYTES}")
    return line


def _leave_defaults_out(value: Any) -> dict[str, Any]:
    """The fields of a dataclass that say something.

    A process of an older release does not know the newest field, and can read what lacks it.
    """
    kind: type = type(value)
    return {
        name: each
        for name, default in _defaults(kind).items()
        if (each := getattr(value, name)) != default
    }


def count_descriptors(line: bytes) -> int:
    """How many descriptors belong to this line, also if its type or its fields are unknown.

    A receiver that knows only the messages of its own release can tell, and so takes no others'.
    """
    if _DESCRIPTORS_MARK not in line:
        return 0
    try:
        document = json_codec.loads(line)
    except json_codec.DecodeError:
        return 0
    count = document.get(DESCRIPTORS) if isinstance(document, dict) else None
    return count if type(count) is int and count > 0 else 0


def decode(line: bytes) -> messages.Down | messages.Up:
    """One line back to its message; raises WireError, never anything else."""
    steps = decode_in_steps(line)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            message: messages.Down | messages.Up = done.value
            return message


def decode_in_steps(line: bytes) -> Generator[None, None, messages.Down | messages.Up]:
    """The same, pausing after each STEP of a snapshot's endpoints: a worker has others to serve."""
    try:
        document = json_codec.loads(line)
    except json_codec.DecodeError as error:
        raise WireError(f"not JSON ({error}): {line[:80]!r}") from None
    if not isinstance(document, dict):
        raise WireError(f"not an object: {line[:80]!r}")
    name = document.pop("type", None)
    document.pop(DESCRIPTORS, None)
    kind = _TYPES.get(name) if isinstance(name, str) else None
    if kind is None:
        raise WireError(f"unknown message type {name!r}")
    try:
        if kind is messages.Snapshot:
            yield from _decode_ahead(document.get("endpoints"))
        message: messages.Down | messages.Up = _decoder(kind)(document)
    except _MismatchError as error:
        raise WireError(f"{name}{error.path}{error.problem}") from None
    return message


def _decode_ahead(endpoints: Any) -> Iterator[None]:
    """Decode these in their place, step by step; what is wrong raises when it is reached."""
    if type(endpoints) is not list or len(endpoints) <= STEP:
        return
    convert = _decoder(Endpoint)
    for start in range(0, len(endpoints), STEP):
        for index, each in enumerate(endpoints[start : start + STEP], start):
            try:
                endpoints[index] = convert(each)
            except _MismatchError as error:
                raise _MismatchError(error.problem, f".endpoints[{index}]{error.path}") from None
        yield


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


class _MismatchError(Exception):
    """A value of the wrong type; ``path`` grows on the way out, and only then is it put together.

    Naming each field on the way in took two thirds of the time of decoding.
    """

    def __init__(self, problem: str, path: str = "") -> None:
        self.problem = problem
        self.path = path


Decoder = Callable[[Any], Any]


@functools.cache
def _decoder(hint: Any) -> Decoder:
    """The function that checks a JSON value against a type hint and converts it."""
    if dataclasses.is_dataclass(hint):
        return _dataclass_decoder(typing.cast("type", hint))
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _enum_decoder(hint)
    origin = typing.get_origin(hint)
    if origin is tuple:
        return _tuple_decoder(_decoder(typing.get_args(hint)[0]))
    if origin is dict:
        return _dict_decoder(_decoder(typing.get_args(hint)[1]))
    if origin in (typing.Union, types.UnionType):  # only "X | None" occurs
        some = _decoder(next(arg for arg in typing.get_args(hint) if arg is not type(None)))
        return lambda value: None if value is None else some(value)
    return _number if hint is float else _leaf_decoder(hint)


def _leaf_decoder(kind: type) -> Decoder:
    def check(value: Any) -> Any:
        if type(value) is not kind:  # JSON has no subclasses, and a bool is no int
            raise _mismatch(kind.__name__, value)
        return value

    return check


def _number(value: Any) -> float:
    if type(value) is float:
        return value
    if type(value) is not int:
        raise _mismatch("number", value)
    return float(value)


def _tuple_decoder(item: Decoder) -> Decoder:
    def convert(value: Any) -> tuple[Any, ...]:
        if type(value) is not list:
            raise _mismatch("list", value)
        done: list[Any] = []
        try:
            for each in value:
                done.append(item(each))  # noqa: PERF401 - how many were right says which is wrong
        except _MismatchError as error:
            raise _MismatchError(error.problem, f"[{len(done)}]{error.path}") from None
        return tuple(done)

    return convert


def _dict_decoder(item: Decoder) -> Decoder:
    def convert(value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise _mismatch("dict", value)
        key = ""
        try:
            for key, each in value.items():
                value[key] = item(each)
        except _MismatchError as error:
            raise _MismatchError(error.problem, f"[{key!r}]{error.path}") from None
        return value

    return convert


def _enum_decoder(kind: type[enum.Enum]) -> Decoder:
    members: dict[Any, enum.Enum] = {member.value: member for member in kind}

    def convert(value: Any) -> enum.Enum:
        try:
            return members[value]
        except (KeyError, TypeError):
            raise _MismatchError(f": {value!r:.80} is no {kind.__name__}") from None

    return convert


def _dataclass_decoder(kind: type) -> Decoder:
    hints = typing.get_type_hints(kind)
    decoders = {f.name: _decoder(hints[f.name]) for f in dataclasses.fields(kind)}
    required = {
        f.name
        for f in dataclasses.fields(kind)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }

    def convert(value: Any) -> Any:
        if type(value) is not dict:
            if type(value) is kind:  # decoded ahead
                return value
            raise _mismatch("dict", value)
        if missing := required - value.keys():
            raise _MismatchError(f": field {min(missing)!r} is missing")
        key = ""
        fields = {}
        try:
            for key, each in value.items():
                fields[key] = decoders[key](each)
        except KeyError:
            raise _MismatchError(f": unknown field {key!r}") from None
        except _MismatchError as error:
            raise _MismatchError(error.problem, f".{key}{error.path}") from None
        return kind(**fields)

    return convert


def _mismatch(wanted: str, value: Any) -> _MismatchError:
    return _MismatchError(f": expected {wanted}, got {value!r:.80}")
