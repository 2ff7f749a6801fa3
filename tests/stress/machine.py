"""A machine in namespaces with a real systemd, the shipped unit and an installed package."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.support import wait_until

REPOSITORY = Path(__file__).parents[2]
UNIT = "etcd-gateway.service"
BOOT_S = 30.0
NEEDED = ("/lib/systemd/systemd", "/usr/bin/systemctl", "/usr/bin/unshare", "/usr/bin/nsenter")


class Machine:
    """A booted one; :func:`booted` owns it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        """systemd's own, seen from here."""

    def run(self, *argv: str, check: bool = True, timeout_s: float = 60.0) -> str:
        """Run a command inside; its output. CalledProcessError: it failed, and ``check``."""
        inside = ["nsenter", "-t", str(self.pid), "-a", "-r", "-w", *argv]
        done = subprocess.run(
            inside,
            check=False,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            env={"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
        )
        if check and done.returncode:
            raise AssertionError(f"{argv}: {done.returncode}: {done.stdout}\n{self.journal()}")
        return done.stdout.strip()

    def ctl(self, *argv: str) -> str:
        return self.run("systemctl", *argv)

    def show(self, name: str) -> str:
        """One property of the unit."""
        return self.ctl("show", "--value", "--property", name, UNIT)

    def journal(self, lines: int = 60) -> str:
        return self.run("journalctl", "--no-pager", "-o", "cat", "-n", str(lines), check=False)

    def use(self, *drop_ins: str) -> None:
        """Have exactly these of the shipped drop-ins in force at the next start."""
        target = self.path("/run/systemd/system/etcd-gateway.service.d")
        for old in target.iterdir():
            old.unlink()
        for name in drop_ins:
            shutil.copy(self.path(f"/opt/drop-ins/{name}.conf"), target)
        self.ctl("daemon-reload")

    def path(self, inside: str) -> Path:
        """The same file, seen from here."""
        return Path(f"/proc/{self.pid}/root{inside}")


def why_not() -> str:
    """Why no machine can be booted here; empty if one may be tried."""
    if os.geteuid() != 0:
        return "needs root"
    if missing := [path for path in NEEDED if not os.path.exists(path)]:
        return f"needs {', '.join(missing)}"
    if _cgroup2() is None:
        return "needs a cgroup2 file system that can be written to"
    return _why_no_root()


@functools.cache
def _why_no_root() -> str:
    """What boot.sh begins with, tried: containers may refuse any of it, even to root."""
    with tempfile.TemporaryDirectory(prefix="etcd-gateway-probe-") as folder:
        probe = (
            'mount -t tmpfs memory "$0" && cd "$0" && mkdir upper work root proc cgroup && '
            "mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work root && "
            "mount -t proc proc proc && mount -t cgroup2 cgroup2 cgroup"
        )
        spaces = ["--pid", "--fork", "--mount", "--uts", "--ipc", "--net", "--cgroup"]
        argv = ["unshare", *spaces, "--propagation", "private", "sh", "-c", probe, folder]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
    said = (done.stderr.strip().splitlines() or ["?"])[-1]
    return f"needs the right to mount a root of its own: {said}" if done.returncode else ""


@contextlib.contextmanager
def booted(folder: Path, netns: str, settings: dict[str, str]) -> Iterator[Machine]:
    """Boot one in the network namespace; ``settings`` are the unit's GATEWAY_ variables."""
    (folder / "etcd-gateway.default").write_text(
        "".join(f"GATEWAY_{name}={value}\n" for name, value in settings.items())
    )
    _build_wheel(folder)
    script = REPOSITORY / "tests/stress/boot.sh"
    lent = (str(REPOSITORY), sys.base_prefix, sysconfig.get_path("purelib"))
    with _boot(folder, netns, str(script), str(folder), *lent) as machine:
        yield machine


@contextlib.contextmanager
def booted_debian(folder: Path, netns: str, debian: Path) -> Iterator[Machine]:
    """Boot the Debian in the network namespace; the packages in ``folder`` are in /packages."""
    script = REPOSITORY / "tests/stress/boot_debian.sh"
    with _boot(folder, netns, str(script), str(folder), str(debian)) as machine:
        yield machine


@contextlib.contextmanager
def _boot(folder: Path, netns: str, *script: str) -> Iterator[Machine]:
    cgroup2 = _cgroup2()
    assert cgroup2 is not None
    cgroup = cgroup2 / f"etcd-gateway-test-{os.getpid()}"
    cgroup.mkdir()
    argv = [
        *("ip", "netns", "exec", netns, "unshare", "--pid", "--fork", "--kill-child"),
        *("--mount", "--uts", "--ipc", "--cgroup", "--mount-proc", "--propagation", "private"),
        *script,
    ]
    with (folder / "boot.log").open("w") as log:
        outer = subprocess.Popen(
            ["sh", "-c", f'echo $$ > {cgroup}/cgroup.procs; exec "$@"', "sh", *argv],
            stdout=log,
            stderr=log,
        )
    try:
        wait_until(lambda: _is_up(outer, folder), BOOT_S, "systemd is up")
        yield Machine(_child_of(outer.pid))
    finally:
        outer.kill()  # --kill-child: its pid namespace goes with it
        outer.wait()
        wait_until(lambda: _is_removed(cgroup), 10)


def _build_wheel(folder: Path) -> None:
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir"]
    subprocess.run([*pip, str(folder), str(REPOSITORY)], check=True, timeout=120)


def _is_up(outer: subprocess.Popen[bytes], folder: Path) -> bool:
    assert outer.poll() is None, (folder / "boot.log").read_text()
    with contextlib.suppress(OSError, AssertionError, IndexError):
        machine = Machine(_child_of(outer.pid))
        if Path(f"/proc/{machine.pid}/comm").read_text() != "systemd\n":
            return False
        return machine.run("systemctl", "is-active", "test.target", check=False) == "active"
    return False


def _child_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def _cgroup2() -> Path | None:
    """Where cgroup2 is mounted, if a group may be made there."""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2" and os.access(where, os.W_OK):
            return Path(where)
    return None


def _is_removed(cgroup: Path) -> bool:
    """Remove the group with all that systemd made below; False while processes are in it."""
    try:
        for folder, _, _ in os.walk(cgroup, topdown=False):
            os.rmdir(folder)
    except OSError:
        return False
    return True
