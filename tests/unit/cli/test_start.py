"""The command line of a start that is read without click."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.cli import commands, start
from supervisor.cli.mistakes import find_mistake
from supervisor.core.flags import FLAGS, FlagKind
from supervisor.system.signals import HANDLED

SWITCHES = [flag.name for flag in FLAGS if flag.kind is FlagKind.SWITCH]

WRITTEN = st.one_of(
    st.builds("--{}={}".format, st.sampled_from([flag.name for flag in FLAGS]), st.text()),
    st.builds("--{}".format, st.sampled_from(SWITCHES)),
)


@given(st.lists(WRITTEN, max_size=6))
def test_it_reads_what_click_reads(written: list[str]) -> None:
    """Whatever is read plainly, click reads alike, and finds no mistake in it."""
    arguments = ["start", *written]
    flags = start.read_plainly(arguments)
    assert flags is not None
    assert not find_mistake(arguments, commands._options_by_command())
    seen: list[Mapping[str, Sequence[str]]] = []

    def run(flags: Mapping[str, Sequence[str]]) -> int:
        seen.append(flags)
        return 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(start, "run", run)
        assert commands.run(arguments) == 0
    assert seen == [flags]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["check", "--endpoints=a:1"],
        ["start", "--endpoints", "a:1"],
        ["start", "--endpoints"],
        ["start", "--endpoint=a:1"],
        ["start", "-endpoints=a:1"],
        ["start", "endpoints=a:1"],
        ["start", "--help"],
        ["start", "--endpoints=a:1", "b:1"],
        ["start", "--"],
        ["--endpoints=a:1", "start"],
    ],
    ids=" ".join,
)
def test_everything_else_is_left_to_click(arguments: list[str]) -> None:
    """It has the words for what is wrong, and reads values behind a blank."""
    assert start.read_plainly(arguments) is None


def test_a_start_pays_for_nothing_that_it_does_not_need() -> None:
    """Neither click nor what other commands, or flags, need is imported by a start."""
    program = """
import sys
from supervisor import master
from supervisor.cli.main import main
master.run = lambda config, load: 0
assert main(["start", "--endpoints=127.0.0.1:1"]) == 0
print(*sorted({"click", "h11", "rich", "tomllib"} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr, done.returncode) == ("\n", "", 0)


def test_signals_are_held_before_anything_of_ours_is_imported() -> None:
    """One that came earlier would end, or stop, what it is meant for."""
    program = (
        "import signal, sys, etcd_gateway\n"
        "def look(*_):\n"
        "    held = sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ()))\n"
        "    print(*held, 'supervisor' in sys.modules)\n"
        "    return 'found'\n"
        "etcd_gateway.find_foreign_package = look\n"
        "sys.argv = ['etcd-gateway', 'start', '--endpoints=127.0.0.1:1']\n"
        "sys.exit(etcd_gateway.main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == [*(str(int(each)) for each in sorted(HANDLED)), "False"]
    assert done.returncode == 1


def test_garbage_is_looked_for_while_the_gateway_runs() -> None:
    """The command's first step keeps the collector away from the imports, and from them alone."""
    program = (
        "import gc, sys, etcd_gateway, supervisor.master\n"
        "supervisor.master.run = lambda *_: print(gc.isenabled(), gc.get_freeze_count() > 0) or 0\n"
        "gc.freeze = (lambda freeze: lambda: (print(gc.isenabled()), freeze()))(gc.freeze)\n"
        "sys.argv = ['etcd-gateway', 'start', '--endpoints=127.0.0.1:1']\n"
        "etcd_gateway.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["False", "True", "True"]
