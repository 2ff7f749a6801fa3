"""Reaping adopted processes without stealing the end of our own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

from supervisor.system.orphans import OrphanReaper

SCRIPT = """
import asyncio, os
from supervisor.system.orphans import OrphanReaper

def child():
    pid = os.fork()
    if pid == 0:
        os._exit(3)
    return pid

async def play():
    loop = asyncio.get_running_loop()
    ours = child()
    owned = {ours}
    reaper = OrphanReaper(loop, owned.__contains__, pid=1)
    reaper.start()
    adopted = [child() for _ in range(5)]
    while os.waitid(os.P_PID, ours, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)
    assert os.waitpid(ours, 0)[1] == 3 << 8
    owned.clear()
    while open(f"/proc/self/task/{os.getpid()}/children").read():
        await asyncio.sleep(0.01)
    reaper.close()
    print("all")

asyncio.run(play())
"""


def test_the_adopted_are_reaped_and_our_own_are_left_to_their_owner() -> None:
    """Our own child may exit first and stay for a while: its status is there for its owner."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "all\n", done.stderr


def test_whoever_is_not_pid_1_has_no_orphans() -> None:
    """Children of a library, or of a test, are none of its business."""

    async def play() -> None:
        reaper = OrphanReaper(asyncio.get_running_loop(), lambda _: False, pid=os.getpid())
        reaper.start()
        await asyncio.sleep(0.01)
        reaper.close()

    with subprocess.Popen(["true"]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        asyncio.run(play())
        assert child.wait(60) == 0
