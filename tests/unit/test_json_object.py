"""JSON objects in what other programs answer."""

from __future__ import annotations

import pytest

from supervisor.core.json_object import read_object


def test_an_object_is_read() -> None:
    """As it is, whatever is in it."""
    assert read_object(b'{"health": "true", "list": [1]}') == {"health": "true", "list": [1]}


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"\xff\xfe{", b"null", b"[1]", b'"text"', b"[" * 100_000]
)
def test_anything_else_is_empty(body: bytes) -> None:
    """No JSON, no text, another kind of value, or brackets without end."""
    assert read_object(body) == {}
