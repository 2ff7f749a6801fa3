"""JSON as bytes, with and without a newline."""

from __future__ import annotations

import datetime
import importlib
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from gateway.core import json_codec

ROOT = Path(__file__).parents[3]

VALUE = {"name": "é", "numbers": [1, 2.5], "nothing": None}


def test_a_value_comes_back() -> None:
    encoded = json_codec.dumps(VALUE)
    assert json_codec.loads(encoded) == VALUE
    assert json_codec.dumps_line(VALUE, vars) == encoded + b"\n"


@pytest.mark.parametrize("text", [b"", b"{", b"[" * 5000, b"\xff", b"NaN"])
def test_what_is_no_json_is_one_error(text: bytes) -> None:
    with pytest.raises(json_codec.DecodeError):
        json_codec.loads(text)


def test_no_module_that_is_missing_crashes_the_interpreter() -> None:
    """Where descriptors are short any import can fail; orjson looks modules up unchecked."""
    script = textwrap.dedent("""
        import os, sys

        def run(missing):
            pid = os.fork()
            if not pid:
                if missing is not None:
                    sys.modules[missing] = None
                try:
                    import gateway.core.json_codec
                except ImportError:
                    os._exit(3)
                if missing is None:
                    print(*(name for name in sys.modules if name not in before), flush=True)
                os._exit(0)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

        before = set(sys.modules)
        print(*(f"{name}={run(name)}" for name in sys.argv[1:])) if sys.argv[1:] else run(None)
    """)
    command = [sys.executable, "-c", script]
    modules = subprocess.check_output(command, cwd=ROOT, text=True).split()
    assert {"uuid", "json.decoder", "datetime"} <= set(modules)
    told = subprocess.check_output([*command, *modules], cwd=ROOT, text=True).split()
    assert len(told) == len(modules)
    assert [each for each in told if each.partition("=")[2] not in ("0", "3")] == []


def test_a_datetime_without_its_part_in_c_is_an_error() -> None:
    """It is imported before, at a moment when a descriptor is missing; then there is one again."""
    script = textwrap.dedent("""
        import sys

        sys.modules["_datetime"] = None
        import datetime

        del sys.modules["_datetime"]
        import _datetime
        try:
            import gateway.core.json_codec
        except ImportError:
            sys.exit(3)
    """)
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT).returncode == 3


def test_why_a_datetime_has_no_part_in_c_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python does not say it: the reason if it lasts, else what it probably was."""
    monkeypatch.delattr(datetime, "datetime_CAPI")
    with pytest.raises(ImportError, match="for a moment: Too many open files"):
        importlib.reload(json_codec)
    monkeypatch.setitem(sys.modules, "_datetime", None)
    with pytest.raises(ImportError, match="import of _datetime halted"):
        importlib.reload(json_codec)
