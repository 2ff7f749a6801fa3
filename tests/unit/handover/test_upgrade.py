"""From one image of the program to the next."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import os
from supervisor.handover import upgrade
facts = {"gens": [], "leaving": [], "story": "x" * 1_000_000}
left = upgrade.take_inherited(os.environ)
if left is None:
    upgrade.execute({}, facts)
assert left[1] == facts
assert upgrade.HANDOVER_VARIABLE not in os.environ
print("pid", os.getpid())
"""


def test_facts_of_any_size_reach_the_next_image() -> None:
    """Thousands of endpoints are more than a variable of the environment holds."""
    with subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, text=True) as it:
        said, _ = it.communicate(timeout=30)
    assert said == f"pid {it.pid}\n"
