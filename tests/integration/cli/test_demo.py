"""The demo as a user runs it: real processes, left clean however it ends."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.etcd import ETCD, needs_etcd
from tests.long_tests import long, only_long
from tests.support import wait_until

PROGRAM = (
    "import sys; from supervisor.demo import run;"
    "sys.exit(run(etcd='--etcd' in sys.argv, once='--once' in sys.argv))"
)
LIMIT_S = 60.0
PRINTING = ("curl", "for", sys.executable, str(Path(sys.executable).parent))
"""How those of the suggested commands begin that print something."""
PATH = os.pathsep.join(["/usr/sbin:/usr/bin:/bin", *([os.path.dirname(ETCD)] if ETCD else [])])


class Demo:
    """A running demo; what it prints goes to a file."""

    def __init__(
        self,
        directory: Path,
        *flags: str,
        env: dict[str, str] | None = None,
        prefix: tuple[str, ...] = (),
    ) -> None:
        self.directory = directory
        self._printed = directory / "printed"
        with self._printed.open("wb") as output:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-c", PROGRAM, *flags],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={"TMPDIR": str(directory), "PATH": PATH, **(env or {})},
            )

    @property
    def printed(self) -> str:
        return self._printed.read_text()

    def wait_for(self, text: str) -> None:
        wait_until(
            lambda: text in self.printed or self.process.poll() is not None,
            LIMIT_S,
            f"the demo prints {text!r}",
        )
        assert text in self.printed, self.printed

    def children(self) -> list[int]:
        return [int(pid) for pid in re.findall(r"pid (\d+)", self.printed)]

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(LIMIT_S)

    def leavings(self) -> list[Path]:
        return list(self.directory.glob("etcd-gateway-demo-*"))


@pytest.fixture
def demos(tmp_path: Path) -> Iterator[list[Demo]]:
    """Demos that are killed at the end of the test if they still run."""
    started: list[Demo] = []
    yield started
    for demo in started:
        demo.process.kill()
        demo.process.wait()


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_tour_holds(tmp_path: Path, demos: list[Demo]) -> None:
    """The whole tour works in front of the small backends, and nothing is left behind."""
    demo = Demo(tmp_path, "--once")
    demos.append(demo)
    assert demo.process.wait(LIMIT_S) == 0, demo.printed
    shares = re.search(r"1\. 30 sessions.*: infra0 (\d+), infra1 (\d+)\n", demo.printed)
    assert shares is not None, demo.printed
    assert abs(int(shares[1]) - 20) <= 2, demo.printed
    assert "NOT AS EXPECTED" not in demo.printed
    assert demo.leavings() == []
    assert not any(is_running(pid) for pid in demo.children())


@pytest.mark.slow
@needs_etcd
def test_tour_holds_in_front_of_etcd(tmp_path: Path, demos: list[Demo]) -> None:
    """The same tour works in front of a real three-member cluster."""
    demo = Demo(tmp_path, "--once", "--etcd")
    demos.append(demo)
    assert demo.process.wait(LIMIT_S) == 0, demo.printed
    assert "NOT AS EXPECTED" not in demo.printed
    assert demo.leavings() == []


@pytest.mark.parametrize("path", [PATH, long("nowhere")], ids=["usual PATH", "no curl"])
def test_what_it_suggests_works_as_printed(tmp_path: Path, demos: list[Demo], path: str) -> None:
    """Each command that the demo prints to try next works, typed in another directory."""
    demo = Demo(tmp_path, env={"PATH": path})
    demos.append(demo)
    demo.wait_for("the status page, in a browser")
    suggested = demo.printed.partition("Your turn")[2].splitlines()[2:-1]
    typed = [line.partition("   #")[0].strip() for line in suggested]
    commands = [line for line in typed if not line.startswith("http:")]
    assert len(commands) == 5
    for command in commands:
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "EDITOR": "test -w"},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
        assert done.returncode == 0, (command, done.stderr)
        assert bool(done.stdout) == shlex.split(command)[0].startswith(PRINTING), (
            command,
            done.stdout,
        )


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_host_without_loopback_is_told_at_once(tmp_path: Path, demos: list[Demo]) -> None:
    """A new network namespace has it down, and sockets can be bound there all the same."""
    demo = Demo(tmp_path, prefix=("unshare", "--net"))
    demos.append(demo)
    assert demo.process.wait(LIMIT_S) == 1
    [line] = demo.printed.splitlines()
    assert line == (
        "etcd-gateway demo: cannot reach 127.0.0.1: Network is unreachable; expected `lo` to be up"
    )
    assert demo.leavings() == []


@pytest.mark.parametrize("number", [signal.SIGINT, long(signal.SIGTERM)])
def test_signal_ends_it_cleanly(tmp_path: Path, demos: list[Demo], number: signal.Signals) -> None:
    """A signal in the middle of the tour ends everything, exit code 0."""
    demo = Demo(tmp_path)
    demos.append(demo)
    demo.wait_for("1. 30 sessions")
    assert demo.end(number) == 0
    assert "Traceback" not in demo.printed
    assert demo.leavings() == []
    assert not any(is_running(pid) for pid in demo.children())


def test_two_at_once_take_different_ports(tmp_path: Path, demos: list[Demo]) -> None:
    """Demos that start in the same moment do not take the usual ports from each other."""
    for name in ("first", "second", "third"):
        (tmp_path / name).mkdir()
        demos.append(Demo(tmp_path / name, "--once"))
    assert [demo.process.wait(LIMIT_S) for demo in demos] == [0, 0, 0], demos[-1].printed
    listens = {re.findall(r"--listen-addr=\S+", demo.printed)[0] for demo in demos}
    assert len(listens) == 3


@only_long
def test_killed_demo_takes_its_children_along(tmp_path: Path, demos: list[Demo]) -> None:
    """Nothing goes on running when the demo is killed without a chance to clean up."""
    demo = Demo(tmp_path)
    demos.append(demo)
    demo.wait_for("1. 30 sessions")
    demo.end(signal.SIGKILL)
    pids = demo.children()
    assert len(pids) == 4
    wait_until(lambda: not any(is_running(pid) for pid in pids), 10.0, "the children end")


@only_long
def test_environment_of_the_user_does_not_matter(tmp_path: Path, demos: list[Demo]) -> None:
    """Settings meant for a gateway of the user's own do not reach that of the demo."""
    demo = Demo(tmp_path, env={"GATEWAY_LISTEN_ADDR": "nonsense", "ETCD_NAME": "other"})
    demos.append(demo)
    demo.wait_for("1. 30 sessions")
    assert demo.end(signal.SIGINT) == 0


def test_etcd_needs_the_program(tmp_path: Path) -> None:
    """Without an etcd program the wish for it is wrong usage, said in one line."""
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, "--etcd"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert result.returncode == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert "--etcd" in result.stderr
