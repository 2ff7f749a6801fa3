"""Hosts that refuse what the gateway needs: it says so at the start, and leaves nothing behind."""

from __future__ import annotations

import platform
import sys

import pytest

from tests.gateway import Gateway
from tests.refused_calls import NUMBERS

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="knows x86-64 numbers only")


@pytest.mark.parametrize("code", [1, 38], ids=["EPERM", "ENOSYS"])
@pytest.mark.parametrize("call", sorted(NUMBERS))
def test_a_refused_call_is_named(call: str, code: int) -> None:
    """The start fails with one error that names the call; no worker was forked."""
    prefix = [sys.executable, "-m", "tests.refused_calls", str(code), call]
    with Gateway(prefix=prefix) as gateway:
        assert gateway.process.wait(60) == 1
        errors = [line for line in gateway.lines() if line["level"] == "error"]
        assert [
            line["msg"].startswith(f"the system call {call} is refused") for line in errors
        ] == [True]
        assert "seccomp" in errors[0]["msg"]
        assert gateway.lines("worker exited") == []
