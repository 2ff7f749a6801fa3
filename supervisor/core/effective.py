"""The effective configuration: the value of each flag, where it came from, what it overrides."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Mapping
from typing import Any

from gateway.core.records import dataclass
from supervisor.core.flags import FLAGS
from supervisor.core.spelling import nearest

PREFIX = "GATEWAY_"


class Source(enum.StrEnum):
    """Where a value came from, in order of precedence."""

    FLAG = "flag"
    VARIABLE = "variable"
    FILE = "file"
    PACKAGE = "package"
    """The default of the unit or the image, in ``GATEWAY_DEFAULT_...``."""
    DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class EffectiveValue:
    """One flag as it is in effect. ``value`` is the text as the operator wrote it."""

    flag: str
    value: str
    source: Source
    overrides: tuple[tuple[Source, str], ...] = ()
    """Other sources that have a different value for this flag, and its text: they lost."""


def follow_from(values: Iterable[EffectiveValue], flag: str, text: str) -> list[EffectiveValue]:
    """The values, where ``flag`` was not given and another one makes its default ``text``."""
    return [dataclasses.replace(v, value=text) if v.flag == flag else v for v in values]


def to_document(values: Iterable[EffectiveValue]) -> dict[str, dict[str, Any]]:
    """The ``configuration`` of the status document and of ``check --json``, by flag."""
    return {
        each.flag: {"value": each.value, "source": each.source.value}
        | ({"overrides": dict(each.overrides)} if each.overrides else {})
        for each in values
    }


def find_misspelled(environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Variables that no flag has and that are spelled almost like one, each with that one.

    Other unknown ``GATEWAY_`` variables are left alone: Kubernetes sets some of its own for a
    service called gateway.
    """
    known = {name for flag in FLAGS for name in (flag.variable, flag.default_variable)}
    unknown = sorted(name for name in environ if name.startswith(PREFIX) and name not in known)
    bare = {name.removeprefix(PREFIX) for name in known}
    pairs = ((name, nearest(name.removeprefix(PREFIX).upper(), bare)) for name in unknown)
    return tuple((name, PREFIX + meant) for name, meant in pairs if meant)
