"""From one image of the program to the next."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from supervisor import launch
from tests.installation import make_first_line

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


IMAGE = """
if [ -z "$ETCD_GATEWAY_PREFLIGHT" ]; then echo executed; exit; fi
echo trial >> trials
read said < answers
echo "etcd-gateway: $said" >&2
"""

ASKED_OFTEN = """
import asyncio, os, pathlib
from supervisor.core.handover_state import HandoverState
from supervisor.handover.preflight import PASSED
from supervisor.handover.upgrade import FAILED, Upgrade
from tests.logbook import Logbook

async def nothing():
    pass

async def trial(count):
    while pathlib.Path("trials").read_text() != "trial\\n" * count:
        await asyncio.sleep(0.01)

def answer(said):
    pathlib.Path("answers").write_text(said + "\\n")

async def main():
    log, obstacle = Logbook(), ["starting"]
    state = HandoverState(command=("/bin/sh", "image"))
    upgrade = Upgrade(
        log, obstacle=lambda: obstacle[0], hand_over=lambda: state,
        pause=nothing, resume=nothing, resume_signals=lambda: None,
    )
    await upgrade.attempt()
    obstacle[0] = ""
    going_on = asyncio.ensure_future(upgrade.catch_up())
    await trial(1)
    await upgrade.attempt()
    await upgrade.attempt()
    answer("no")
    await trial(2)
    await upgrade.attempt()
    answer(PASSED)
    await trial(3)
    await upgrade.attempt()
    lines = [(line["msg"], line.get("reason")) for line in log.lines]
    one_is_on = ("no upgrade now", "one is on")
    assert lines[:3] == [("no upgrade now", "starting"), one_is_on, one_is_on], lines
    assert lines[3:] == [(FAILED, None), one_is_on, one_is_on], lines
    answer(PASSED)
    await going_on

asyncio.run(main())
"""


def test_no_upgrade_is_forgotten_that_was_asked_for_meanwhile(tmp_path: Path) -> None:
    """During a start, during a trial that fails, and once more during one that goes well."""
    (tmp_path / "image").write_text(IMAGE)
    (tmp_path / "trials").touch()
    os.mkfifo(tmp_path / "answers")
    done = subprocess.run(
        [sys.executable, "-c", ASKED_OFTEN],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.stdout, done.stderr) == ("executed\n", "")
    assert (tmp_path / "trials").read_text() == "trial\n" * 3


@pytest.mark.parametrize(
    ("first_line", "ran_by", "again"),
    [
        ("{by_python}", [], ["{script}"]),
        ("{by_shell}", [], ["{script}"]),
        ("#!/usr/bin/env python-in-path", [], ["{script}"]),
        ("#!/usr/bin/env python-in-path", ["{python}"], ["{python}", "{script}"]),
        ("#!/opt/other/bin/python3", ["{python}"], ["{script}"]),
    ],
    ids=[
        "an environment's",
        "an environment's in a folder with a space",
        "the one file",
        "the one file by another Python",
        "unknown",
    ],
)
def test_the_next_image_runs_by_the_python_that_was_chosen(
    tmp_path: Path, first_line: str, ran_by: list[str], again: list[str]
) -> None:
    """A script names its own, unless that is the first one in PATH and another was chosen."""
    script = tmp_path / "etcd-gateway"
    (tmp_path / "python-in-path").symlink_to(sys.executable)
    spaced = tmp_path / "with space" / "python"
    spaced.parent.mkdir()
    spaced.symlink_to(sys.executable)
    names = {
        "python": sys.executable,
        "script": str(script),
        "by_python": make_first_line(sys.executable),
        "by_shell": make_first_line(str(spaced)),
    }
    script.write_text(
        f"{first_line.format(**names)}\n"
        f"import sys; sys.path[:0] = {sys.path}\n"
        "from supervisor.handover.image import command\n"
        "for word in command(): print(word)\n"
    )
    script.chmod(0o755)
    done = subprocess.run(
        [*(each.format(**names) for each in ran_by), str(script), "start"],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.splitlines() == [*(each.format(**names) for each in again), "start"], done


TRIED_AGAIN = """
import json, os, signal
from supervisor import launch
from supervisor.core.handover_state import HandoverState
from supervisor.handover import image, upgrade
from supervisor.handover.state import HANDOVER_VARIABLE
print("started", flush=True)
if HANDOVER_VARIABLE not in os.environ:
    state = HandoverState(command=image.command(), image=image.describe() if GOES_BACK else None)
    upgrade.execute(state.command, state)
document = int(os.environ[HANDOVER_VARIABLE])
left = json.loads(os.pread(document, os.fstat(document).st_size, 0))
if left.get("failures", 0) < 2:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
    os.kill(os.getpid(), signal.SIGHUP)  # tried again at once
    launch._recover(document)
"""


def test_a_program_that_cannot_be_executed_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The workers of before must not be lost because an interpreter is missing for a moment."""
    executed: list[tuple[int, str]] = []

    def execute(program: str, _argv: object, _environment: object) -> None:
        state = json.loads(os.pread(document.fileno(), 10_000, 0))
        executed.append((state["failures"], program))
        if len(executed) == 1:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        raise StopIteration  # as if it ran

    monkeypatch.setattr(os, "execve", execute)
    monkeypatch.setattr(launch, "_wait_for_another_try", lambda *_: 0)
    with tempfile.TemporaryFile() as document:
        document.write(json.dumps({"command": ["/bin/sh"]}).encode())
        document.flush()
        with pytest.raises(StopIteration):
            launch._recover(document.fileno())
    assert executed == [(1, "/bin/sh"), (2, "/bin/sh")]
    assert "cannot execute /bin/sh: No such file or directory" in capsys.readouterr().err


@pytest.mark.parametrize("goes_back", [False, True])
def test_a_start_that_failed_is_tried_again_by_the_python_that_was_chosen(
    tmp_path: Path, goes_back: bool
) -> None:
    """By the command of the upgrade; where another image was gone back to, by that image."""
    script, other = tmp_path / "etcd-gateway", tmp_path / "python-in-path"
    other.write_text("#!/bin/sh\necho too old\n")
    script.write_text(
        "#!/usr/bin/env python-in-path\n"
        f"import sys; sys.path[:0] = {sys.path}\n"
        f"GOES_BACK = {goes_back}\n{TRIED_AGAIN}"
    )
    for each in (script, other):
        each.chmod(0o755)
    done = subprocess.run(
        [sys.executable, str(script), "start"],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "started\n" * 4, done
