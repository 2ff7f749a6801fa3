"""What the tests themselves stand on."""

from __future__ import annotations

import random
import subprocess
import sys

from tests.support import free_port

TAKE = "import tests.support as s; print(*[s.free_port() for _ in range({count})], flush=True); "


def test_ports_differ_between_processes() -> None:
    """Test processes side by side never get the same port, although none of them is bound yet."""
    argv = [sys.executable, "-c", TAKE.format(count=2000) + "input()"]
    pipe = subprocess.PIPE
    processes = [subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True) for _ in range(3)]
    taken: list[str] = []
    for process in processes:
        assert process.stdout is not None
        taken += process.stdout.readline().split()
    for process in processes:
        process.communicate("\n")
    assert len(taken) == len(set(taken)) == 6000


def test_ports_do_not_repeat_with_the_seed() -> None:
    """The seed that makes tests repeatable does not make two processes choose the same ports."""
    random.seed(1)
    first = [free_port() for _ in range(3)]
    random.seed(1)
    assert [free_port() for _ in range(3)] != first
