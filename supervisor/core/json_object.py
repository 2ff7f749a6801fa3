"""JSON objects in what other programs answer, who may answer anything."""

from __future__ import annotations

import json
from typing import Any


def read_object(body: bytes) -> dict[str, Any]:
    """The JSON object that ``body`` is, or an empty one if it is none."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):  # not JSON, not even UTF-8, or nested without end
        return {}
    return document if isinstance(document, dict) else {}
