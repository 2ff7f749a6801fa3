"""JSON as bytes, with and without a newline."""

from __future__ import annotations

import pytest

from gateway.core import json_codec

VALUE = {"name": "é", "numbers": [1, 2.5], "nothing": None}


def test_a_value_comes_back() -> None:
    encoded = json_codec.dumps(VALUE)
    assert json_codec.loads(encoded) == VALUE
    assert json_codec.dumps_line(VALUE) == encoded + b"\n"


@pytest.mark.parametrize("text", [b"", b"{", b"[" * 5000, b"\xff", b"NaN"])
def test_what_is_no_json_is_one_error(text: bytes) -> None:
    with pytest.raises(json_codec.DecodeError):
        json_codec.loads(text)
