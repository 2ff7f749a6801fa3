"""JSON as bytes: the one place that knows which library encodes and decodes it."""

from __future__ import annotations

# What orjson looks up when it is imported. Where one of them is missing, as when descriptors are
# short, it crashes; here that is an error.
import dataclasses  # noqa: F401
import datetime
import enum  # noqa: F401
import importlib
import json  # noqa: F401
import uuid  # noqa: F401
from collections.abc import Callable
from typing import Any

if not hasattr(datetime, "datetime_CAPI"):
    # Python goes on without the part of datetime that is in C, and does not say why.
    importlib.import_module("_datetime")  # says why, if it still is so
    raise ImportError("_datetime at first, for a moment: Too many open files, or no memory")

import orjson

DecodeError = orjson.JSONDecodeError
"""What :func:`loads` raises; a ValueError whose text says where the document is wrong."""

_LINE = orjson.OPT_APPEND_NEWLINE | orjson.OPT_PASSTHROUGH_DATACLASS
_RECORD = _LINE | orjson.OPT_NON_STR_KEYS


def dumps_line(value: Any, fields_of: Callable[[Any], dict[str, Any]]) -> bytes:
    """``value`` as one line, newline included; enums, and ``fields_of`` each dataclass in it."""
    return orjson.dumps(value, fields_of, _LINE)


def dumps_record(value: Any) -> bytes:
    """``value`` as one line; what JSON has no type for becomes its ``str``.

    Raises TypeError for what cannot be encoded at all: surrogates, integers beyond 64 bits.
    """
    return orjson.dumps(value, default=str, option=_RECORD)


def dumps(value: Any) -> bytes:
    """``value`` without a newline."""
    return orjson.dumps(value)


def loads(line: bytes) -> Any:
    """The value that ``line`` encodes; raises :data:`DecodeError`."""
    return orjson.loads(line)
