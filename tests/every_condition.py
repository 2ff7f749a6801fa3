"""``make conditions``: takes every condition of a module away, and shows those that no test misses.

``python -m tests.every_condition [--jobs=N] [--draw=N --seed=N] [MODULE...]``; without modules,
those of ``TESTS``. ``--draw`` takes so many changes by chance: all of them take hours.

Each ``if``, ``elif``, ``while``, conditional expression and filter of a comprehension is replaced
by ``True`` and by ``False``, one at a time, in a copy of the sources. The tests of the module run
in that copy until one fails. What passes all of them is printed: the condition saves time only, or
a test is missing. Which of the two it is, a reader has to decide. A module whose tests fail without
a change is left out: they would seem to notice everything.
"""

from __future__ import annotations

import argparse
import ast
import compileall
import queue
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.mutants import ROOT, run_tests, scratch

UNIT = "tests/unit/gateway/"
PLANE = "tests/integration/gateway/"
RELAY = (
    f"{PLANE}test_relay.py",
    f"{PLANE}test_resets.py",
    f"{PLANE}test_urgent.py",
    f"{PLANE}test_addresses.py",
    f"{PLANE}test_session_model.py",
    f"{PLANE}test_hot_path.py",
    f"{PLANE}test_unix.py",
    f"{PLANE}test_vanished_peer.py",
    f"{PLANE}test_access_log.py",
)
DISCOVERY = "tests/unit/discovery/"
SIMULATION = "tests/unit/test_simulation.py"
FLEET = ("tests/unit/workers/test_fleet.py", "tests/unit/workers/test_adopters.py", SIMULATION)
HEALTH = ("tests/unit/health/test_machine.py", "tests/unit/health/test_prober.py", SIMULATION)
ROSTER = ("tests/unit/test_roster.py", "tests/unit/test_endpoint_tracker.py", SIMULATION)

LIMIT_S = 20
"""A test that takes longer waits for what the change took away."""

TESTS: dict[str, tuple[str, ...]] = {
    "gateway/poller.py": (f"{UNIT}test_poller.py", *RELAY),
    "gateway/sessions/leg.py": RELAY,
    "gateway/sessions/session.py": RELAY,
    "gateway/sessions/dial.py": RELAY,
    "gateway/sessions/dialer.py": RELAY,
    "gateway/ingress/acceptor.py": (f"{PLANE}test_listener.py", f"{PLANE}test_ingress.py"),
    "gateway/ingress/listener.py": (f"{PLANE}test_listener.py", f"{PLANE}test_ingress.py"),
    "gateway/ingress/quota.py": (f"{UNIT}test_quota.py", f"{UNIT}test_accept_rate.py"),
    "gateway/core/table.py": (f"{UNIT}test_table.py", UNIT),
    "gateway/core/selection.py": (f"{UNIT}test_selection.py", UNIT),
    **{
        f"supervisor/core/discovery/{name}.py": (f"{DISCOVERY}test_{name}.py", DISCOVERY)
        for name in ("admission", "adoption", "answers", "endpoints", "inquiry", "joining")
    },
    "supervisor/core/handover_document.py": ("tests/unit/handover/",),
    "supervisor/core/next_master.py": ("tests/unit/test_next_master.py", SIMULATION),
    "supervisor/core/roster.py": ROSTER,
    "supervisor/core/roster_member.py": ROSTER,
    "supervisor/core/workers/fleet.py": FLEET,
    "supervisor/core/workers/adopters.py": FLEET,
    "supervisor/core/workers/slot.py": FLEET,
    "supervisor/core/health/machine.py": HEALTH,
    "supervisor/core/health/damping.py": HEALTH,
}
"""By module: the files and folders of its tests, the likeliest to notice first."""


def tests_of(module: str) -> tuple[str, ...]:
    return TESTS.get(module, ("tests/unit",))


@dataclass(frozen=True, slots=True)
class Change:
    """One condition of a module, from ``start`` to ``end`` of its text, and what replaces it."""

    module: str
    line: int
    start: int
    end: int
    condition: str
    value: str

    def apply(self, text: str) -> str:
        return f"{text[: self.start]}{self.value}{text[self.end :]}"


def changes(module: str, text: str) -> Iterator[Change]:
    """Every change to the module, in the order of its text."""
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for test in sorted(
        conditions(ast.parse(text)), key=lambda test: (test.lineno, test.col_offset)
    ):
        assert test.end_lineno is not None
        assert test.end_col_offset is not None
        start = starts[test.lineno - 1] + test.col_offset
        end = starts[test.end_lineno - 1] + test.end_col_offset
        for value in ("True", "False"):
            if text[start:end] != value:
                yield Change(module, test.lineno, start, end, text[start:end], value)


def conditions(tree: ast.AST) -> Iterator[ast.expr]:
    """Whatever decides; not the type checker's own blocks, which never run."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If | ast.While | ast.IfExp):
            if not (isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
                yield node.test
        elif isinstance(node, ast.comprehension):
            yield from node.ifs


def works(copy: Path, module: str, tests: Sequence[str]) -> bool:
    """Whether the tests of the module pass without a change; says so if they do not."""
    try:
        failed = [name for each in tests for name in run_tests(copy, (each,))]
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        failed = [str(error)]
    if failed:
        print(f"{module} is left out: without a change, {failed[0]} fails", flush=True)
    return not failed


def is_noticed(copy: Path, change: Change, tests: Sequence[str]) -> bool:
    """Whether a test fails, or none of them can run or end, with the change in the copy."""
    path = copy / change.module
    right = path.read_text()
    path.write_text(change.apply(right))
    try:
        return any(run_tests(copy, (each,), limit_s=LIMIT_S) for each in tests)
    except (RuntimeError, subprocess.TimeoutExpired):
        return True
    finally:
        path.write_text(right)


def sweep(modules: Sequence[str], jobs: int, drawn: int | None, seed: int) -> int:
    """Try every change, or as many as are ``drawn``; returns how many no test noticed."""
    with scratch() as copy:
        modules = [each for each in modules if works(copy, each, tests_of(each))]
    todo = [change for module in modules for change in changes(module, (ROOT / module).read_text())]
    if drawn is not None:
        todo = random.Random(seed).sample(todo, min(drawn, len(todo)))
    copies: queue.Queue[Path] = queue.Queue()
    unnoticed = 0
    with ExitStack() as stack:
        for _ in range(jobs):
            copy = stack.enter_context(scratch())
            for package in ("gateway", "supervisor", "tests"):
                compileall.compile_dir(copy / package, quiet=1)
            for module in modules:  # else a compiled file of the same second would be taken for it
                for compiled in (copy / module).parent.glob(f"__pycache__/{Path(module).stem}.*"):
                    compiled.unlink()
            copies.put(copy)

        def attempt(change: Change) -> bool:
            copy = copies.get()
            try:
                return is_noticed(copy, change, tests_of(change.module))
            finally:
                copies.put(copy)

        began = time.monotonic()
        with ThreadPoolExecutor(jobs) as pool:
            for done, (change, noticed) in enumerate(
                zip(todo, pool.map(attempt, todo), strict=True), 1
            ):
                if not noticed:
                    unnoticed += 1
                    condition = " ".join(change.condition.split())
                    where = f"{change.module}:{change.line}"
                    print(f"{where}: nothing misses `{condition}`, always {change.value}")
                if sys.stderr.isatty() or done == len(todo):
                    passed = time.monotonic() - began
                    print(f"{done} of {len(todo)} in {passed:.0f} s", file=sys.stderr)
                sys.stdout.flush()
    print(f"{len(todo) - unnoticed} of {len(todo)} changes were noticed")
    return unnoticed


def main(argv: Sequence[str]) -> int:
    """The command line; returns the exit status, which is 0: readers judge what is printed."""
    parser = argparse.ArgumentParser(prog="python -m tests.every_condition", description=__doc__)
    parser.add_argument("--jobs", type=int, default=2, help="copies that are tried at once")
    parser.add_argument("modules", nargs="*", default=list(TESTS))
    parser.add_argument("--draw", type=int, help="so many changes, by chance")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args(argv)
    if gone := [module for module in options.modules if not (ROOT / module).is_file()]:
        parser.error(f"no such module: {', '.join(gone)}")
    print(f"seed {options.seed}", flush=True)
    sweep(options.modules, options.jobs, options.draw, options.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
