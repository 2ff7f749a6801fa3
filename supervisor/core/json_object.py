"""JSON objects in what other programs answer, who may answer anything."""

from __future__ import annotations

import json
import re
from typing import Any


def read_object(body: bytes) -> dict[str, Any]:
    """The JSON object that ``body`` is, or an empty one if it is none."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):  # not JSON, not even UTF-8, or nested without end
        return {}
    return document if isinstance(document, dict) else {}


def read_number(value: object) -> int:
    """A number of etcd's JSON, which writes those of 64 bits as texts; 0 if it is none."""
    text = str(value) if isinstance(value, str | int) else ""
    return int(text) if re.fullmatch(r"-?[0-9]{1,20}", text) else 0
