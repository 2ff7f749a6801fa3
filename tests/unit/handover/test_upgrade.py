"""From one image of the program to the next."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import os
from supervisor.core.handover_state import HandoverState
from supervisor.handover import upgrade
from supervisor.handover.image import command
from supervisor.handover.inheritance import take_over
from supervisor.handover.state import HANDOVER_VARIABLE
left = take_over(os.environ)
if left.document is None:
    inode = os.fstat(1).st_ino
    event = {"story": "x" * 1_000_000, "inode": inode}
    state = HandoverState(workers=7, events=(event,), descriptors={"other.1": 1})
    upgrade.execute(command(), state)
assert left.state.workers == 7
assert len(left.state.events[0]["story"]) == 1_000_000
assert left.took_over is False
assert left.take("admin") == {}
assert HANDOVER_VARIABLE in os.environ
left.commit(os.environ)
assert HANDOVER_VARIABLE not in os.environ
taken = left.take("other")
assert os.fstat(taken["other.1"]).st_ino == left.state.events[0]["inode"]
assert left.others == {}
print("pid", os.getpid())
"""


def test_a_state_of_any_size_and_descriptors_of_any_name_reach_the_next_image() -> None:
    """Thousands of endpoints are more than a variable holds; other parts fetch what is theirs."""
    with subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, text=True) as it:
        said, _ = it.communicate(timeout=120)
    assert said == f"pid {it.pid}\n"
