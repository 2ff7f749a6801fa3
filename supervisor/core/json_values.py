"""Dataclasses as values of JSON: what is written, and whether what was read fits a field."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

MOST = 2**53
"""No number that counts or measures something here gets so large; above it a float is not exact."""


def facts_of(record: Any, *records: str) -> dict[str, Any]:
    """The fields of a dataclass by name; those in ``records`` hold a dataclass themselves, or None.

    ``dataclasses.asdict`` would copy all that is in them as well: with 3,000 endpoints it takes
    seven times as long, and the master does nothing else meanwhile.
    """
    facts = {each.name: getattr(record, each.name) for each in dataclasses.fields(record)}
    for name in records:
        facts[name] = None if facts[name] is None else facts_of(facts[name])
    return facts


@cache
def kinds_of(kind: type) -> Mapping[str, Any]:
    """The type of each field of a dataclass."""
    return get_type_hints(kind)


def fits(value: object, kind: Any) -> bool:
    """Whether a value of a JSON document is of the type; of a dataclass: an object."""
    arguments = get_args(kind)
    if get_origin(kind) is UnionType:
        return any(fits(value, each) for each in arguments)
    if get_origin(kind) is Mapping:
        return isinstance(value, dict) and all(fits(each, arguments[1]) for each in value.values())
    if arguments:  # a sequence
        return isinstance(value, list | tuple) and all(fits(each, arguments[0]) for each in value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and -MOST <= value <= MOST
    if kind is float:  # NaN is none
        return fits(value, int) or (isinstance(value, float) and -MOST <= value <= MOST)
    if kind in (bool, str, NoneType):
        return isinstance(value, kind)
    return isinstance(value, dict)
