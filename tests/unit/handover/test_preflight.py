"""The preflight of an upgrade, on a host that is short of something."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest

from supervisor.core.handover_state import HandoverState
from supervisor.handover.preflight import PASSED, Preflight
from tests.support import children


@pytest.mark.parametrize("nth", [1, 2])
def test_a_child_that_cannot_be_watched_leaves_nothing_behind(
    nth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fs.epoll.max_user_watches is reached: the upgrade is refused, the child and its descriptors
    are gone."""

    async def play() -> None:
        loop = asyncio.get_running_loop()
        add_reader = loop.add_reader
        left = nth

        def refuse(*arguments: object) -> None:
            nonlocal left
            left -= 1
            if not left:
                raise OSError(errno.ENOSPC, "No space left on device")
            add_reader(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(loop, "add_reader", refuse)
        before = os.listdir("/proc/self/fd"), children()
        why = await Preflight().run(HandoverState(command=("/bin/sleep", "600")))
        assert why is not None
        assert "fs.epoll.max_user_watches" in why
        assert (os.listdir("/proc/self/fd"), children()) == before

    asyncio.run(play())


def test_a_program_that_ends_well_and_is_no_gateway_is_refused() -> None:
    """Executed in the place of the master, it would be the end of the gateway."""
    why = asyncio.run(Preflight().run(HandoverState(command=("/bin/sh", "-c", "echo done >&2"))))
    assert why == "it ended without a trial of its start, as no gateway does"


def test_an_earlier_build_says_nothing_of_its_trial_but_its_version(tmp_path: Path) -> None:
    """So there is a way back to it."""
    program = tmp_path / "etcd-gateway"
    program.write_text('#!/bin/sh\n[ "$1" != --version ] || echo etcd-gateway 1.0.0.dev0\n')
    program.chmod(0o755)
    state = HandoverState(command=(str(program), "start", "--endpoints=127.0.0.1:1"))
    assert asyncio.run(Preflight().run(state)) is None


def test_what_a_child_says_is_heard_among_anything_else() -> None:
    """Its interpreter may print pages before and after (PYTHONVERBOSE)."""
    said = f"seq 9999 >&2; echo 'etcd-gateway: {PASSED}' >&2; seq 9999 >&2"
    assert asyncio.run(Preflight().run(HandoverState(command=("/bin/sh", "-c", said)))) is None


def test_one_that_dies_when_it_has_passed_is_told_by_how_it_died() -> None:
    """That its trial went well is no reason for an upgrade that fails."""
    said = f"echo 'etcd-gateway: {PASSED}' >&2; kill -SEGV $$"
    why = asyncio.run(Preflight().run(HandoverState(command=("/bin/sh", "-c", said))))
    assert why == "signal 11"


def test_one_that_is_killed_is_told_with_the_likely_reason() -> None:
    """The kernel kills a trial before the gateway, and says nothing to anybody."""
    why = asyncio.run(Preflight().run(HandoverState(command=("/bin/sh", "-c", "kill -KILL $$"))))
    assert why == (
        "signal 9, as the kernel does it for want of memory; expected room for a second program"
    )
