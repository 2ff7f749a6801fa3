"""``make mutants``: takes one condition away at a time, and sees which tests notice.

Each mutant is made in a copy of the sources, where the tests of its place are run, until one fails;
the gateways that they start are made of the copy too. All of these tests are in ``make test``. The
one that failed is run again without the mistake: if it fails then as well, it has noticed nothing,
and the others are run without it. A place is named by its text: code that was changed so that the
text is not there any more, or is there twice, ends the run with an error, and the place has to be
looked at again.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
COPIED = ("gateway", "supervisor", "tests", "docs", "deploy", "pyproject.toml", "Makefile")
TIMEOUT_S = 600.0

SIMULATION = "tests/unit/test_simulation.py::test_no_promise_is_broken"
FLEET = ("tests/unit/workers/test_fleet.py", SIMULATION)
HEALTH = ("tests/unit/health/test_machine.py", SIMULATION)
RELAY = (
    "tests/integration/gateway/test_relay.py",
    "tests/integration/gateway/test_resets.py",
)
DIAL = ("tests/integration/gateway/test_relay.py", "tests/integration/gateway/test_addresses.py")
INGRESS = (
    "tests/unit/gateway/test_quota.py",
    "tests/integration/gateway/test_listener.py",
    "tests/integration/gateway/test_ingress.py",
)


@dataclass(frozen=True, slots=True)
class Mutant:
    """A condition and what it is replaced by, in one file, and the tests of that place."""

    name: str
    path: str
    right: str
    wrong: str
    tests: tuple[str, ...]


MUTANTS = (
    Mutant(
        "leg: half of a write counts as the whole",
        "gateway/sessions/leg.py",
        "            if sent != size:\n                self.keep(memoryview(data)[sent:])",
        "            if False:\n                self.keep(memoryview(data)[sent:])",
        RELAY,
    ),
    Mutant(
        "leg: an end of stream is not passed on",
        "gateway/sessions/leg.py",
        "                if not told:\n                    shut_write(self.peer.fd)",
        "                if told:\n                    shut_write(self.peer.fd)",
        RELAY,
    ),
    Mutant(
        "leg: the first end ends the session",
        "gateway/sessions/leg.py",
        "        if not self.peer.ended:\n            self.session.first_ended(self)",
        "        if False:\n            self.session.first_ended(self)",
        RELAY,
    ),
    Mutant(
        "leg: what a broken side sent before is held back",
        "gateway/sessions/leg.py",
        "                if error is None or error.errno == errno.EPIPE:\n",
        "                if False:\n",
        RELAY,
    ),
    Mutant(
        "leg: the rest of a stream is cut when its sender is forgotten",
        "gateway/sessions/leg.py",
        "        if self._ended_before(error):\n",
        "        if False:\n",
        RELAY,
    ),
    Mutant(
        "session: a cut is no reset for the endpoint",
        "gateway/sessions/session.py",
        "            arm_reset(self.client.fd)\n            if self.upstream is not None:",
        "            arm_reset(self.client.fd)\n            if self.upstream is None:",
        RELAY,
    ),
    Mutant(
        "dial: an endpoint is blamed before its last address",
        "gateway/sessions/dial.py",
        "        if not self.untried[endpoint.name]:\n",
        "        if True:\n",
        DIAL,
    ),
    Mutant(
        "dial: nobody waits until our own failures are over",
        "gateway/sessions/dial.py",
        "        if result is DialResult.LOCAL:\n            self.local = True",
        "        if False:\n            self.local = True",
        (
            "tests/integration/health/test_no_route.py",
            "tests/integration/gateway/test_unix.py",
            *DIAL,
        ),
    ),
    Mutant(
        "dial: a dial that takes too long goes on",
        "gateway/sessions/dial.py",
        "            overdue = now - attempt.started_at >= settings.dial_timeout_s",
        "            overdue = False",
        DIAL,
    ),
    Mutant(
        "dial: nobody is dialed beside a slow one",
        "gateway/sessions/dial.py",
        "        elif 0 < settings.dial_hedge_s <= now - self.attempts[-1].started_at:",
        "        elif False:",
        DIAL,
    ),
    Mutant(
        "acceptor: clients are accepted without room",
        "gateway/ingress/acceptor.py",
        "            if not room:\n                self.pause(quota.shortage)",
        "            if False:\n                self.pause(quota.shortage)",
        INGRESS,
    ),
    Mutant(
        "acceptor: accepting does not begin again",
        "gateway/ingress/acceptor.py",
        "        elif self._quota.room():\n            self._resume()",
        "        elif False:\n            self._resume()",
        INGRESS,
    ),
    Mutant(
        "quota: who was held back is overtaken",
        "gateway/ingress/quota.py",
        "            if held_back := bool(self._held_back) or not self._has_place():",
        "            if held_back := not self._has_place():",
        INGRESS,
    ),
    Mutant(
        "fleet: a slot has no second adopter",
        "supervisor/core/workers/adopters.py",
        "    if slot.adopter is not None and not _serves(slots, slot.adopter):",
        "    if False:",
        FLEET,
    ),
    Mutant(
        "fleet: an adopter is never released",
        "supervisor/core/workers/adopters.py",
        "    if slot.serving:\n        slot.unserved_at = None",
        "    if False:\n        slot.unserved_at = None",
        FLEET,
    ),
    Mutant(
        "fleet: slots bind before the first one",
        "supervisor/core/workers/fleet.py",
        "        if not slot.wanted or now < slot.retry_at or not may_bind:",
        "        if not slot.wanted or now < slot.retry_at:",
        FLEET,
    ),
    Mutant(
        "fleet: a pause of the master is held against the workers",
        "supervisor/core/workers/fleet.py",
        "        if gap_s >= 0.0 and now - self.due_at <= GAP_S:\n            return",
        "        if True:\n            return",
        FLEET,
    ),
    Mutant(
        "fleet: the old worker stays beside its successor",
        "supervisor/core/workers/fleet.py",
        "        if worker is slot.successor and slot.occupant is not None:",
        "        if False:",
        FLEET,
    ),
    Mutant(
        "fleet: a worker that does not leave is not killed",
        "supervisor/core/workers/fleet.py",
        "WorkerState.DRAINING if worker.due_at is not None and now > worker.due_at:",
        "WorkerState.DRAINING if False:",
        FLEET,
    ),
    Mutant(
        "health: a failure of an older dial counts",
        "supervisor/core/health/machine.py",
        "self._take_bad(error, now) if began_at >= self._passed_at else None",
        "self._take_bad(error, now)",
        HEALTH,
    ),
    Mutant(
        "health: --health-rise is not counted",
        "supervisor/core/health/machine.py",
        "        if self.active or self.good < self.rules.rise or self.damping.left_s(now):",
        "        if self.active or self.damping.left_s(now):",
        HEALTH,
    ),
    Mutant(
        "health: --health-fall is not counted",
        "supervisor/core/health/machine.py",
        "        if not self.active or self.bad < self.rules.fall:",
        "        if not self.active:",
        HEALTH,
    ),
    Mutant(
        "health: --health-min-active keeps nothing",
        "supervisor/core/health/machine.py",
        "        if keep:\n            return None",
        "        if False:\n            return None",
        HEALTH,
    ),
)


def main(chosen: Sequence[str]) -> int:
    """Every mutant, or those whose name has one of these words in it."""
    for word in chosen:
        if not any(word in mutant.name for mutant in MUTANTS):
            names = "\n".join(mutant.name for mutant in MUTANTS)
            print(f"no mutant has {word!r} in its name; there are:\n{names}", file=sys.stderr)
            return 2
    mutants = [m for m in MUTANTS if not chosen or any(word in m.name for word in chosen)]
    missed = 0
    print("| mistake | noticed by |\n|---|---|")
    with scratch() as copy:
        for mutant in mutants:
            caught = catch(copy, mutant)
            missed += not caught
            print(f"| {mutant.name} | {', '.join(caught) or 'nothing'} |", flush=True)
    print(f"\n{len(mutants) - missed} of {len(mutants)} noticed")
    return 1 if missed else 0


@contextmanager
def scratch() -> Iterator[Path]:
    """A copy of the sources that may be broken."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as place:
        copy = Path(place)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(source, copy / name, ignore=ignored, symlinks=True)
            else:
                shutil.copy(source, copy / name)
        yield copy


def mutate(text: str, mutant: Mutant) -> str:
    """The file's text with the mistake in it."""
    count = text.count(mutant.right)
    if count != 1:
        raise LookupError(
            f"{mutant.path}: {count} times, expected once: {mutant.right!r};"
            f" the place of the mutant {mutant.name!r} has to be named anew"
        )
    return text.replace(mutant.right, mutant.wrong)


def catch(copy: Path, mutant: Mutant) -> list[str]:
    """The first test that fails with this mistake and passes without it; none if there is none."""
    path = copy / mutant.path
    right = path.read_text()
    useless: list[str] = []
    while True:
        path.write_text(mutate(right, mutant))
        try:
            found = run_tests(copy, mutant.tests, without=useless)
        finally:
            path.write_text(right)
        if not found or not run_tests(copy, found):
            return [f"`{name.removeprefix('tests/').partition('[')[0]}`" for name in found]
        useless += found


def run_tests(
    copy: Path, tests: Sequence[str], *, without: Sequence[str] = (), limit_s: int = 60
) -> list[str]:
    """The first of these tests that fails, if any does; ``limit_s`` is for each."""
    done = subprocess.run(
        [
            *(sys.executable, "-B", "-m", "pytest", "-q", "-x", f"--timeout={limit_s}"),
            *("-p", "no:xdist", "-p", "no:cacheprovider", *tests),
            *(f"--deselect={name}" for name in without),
        ],
        cwd=copy,
        env=os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    found = re.findall(r"^(?:FAILED|ERROR) (tests/.+?)(?: - .*)?$", done.stdout, re.MULTILINE)
    if done.returncode not in (0, 1) or bool(found) is not bool(done.returncode):
        raise RuntimeError(f"the tests did not run: {done.stdout[-2000:]}")
    return list(dict.fromkeys(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
