"""How many CPUs this process may use, whatever the cgroup says."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from gateway.core.messages import MAX_SLOTS
from supervisor.system.limits import (
    Shares,
    describe_shortage,
    find_obstacle,
    given_workers,
    share_out,
    usable_cpus,
)

ALLOWED = len(os.sched_getaffinity(0))


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "proc"
    path.mkdir()
    (path / "cgroup").write_text("0::/a/b\n")
    return path


def write(root: Path, group: str, text: str) -> None:
    path = root / group
    path.mkdir(parents=True, exist_ok=True)
    (path / "cpu.max").write_text(text)


def test_there_are_no_more_workers_than_there_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host with more CPUs than slots: ``check`` and ``start`` mean the same number."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(384)))
    assert 1 <= given_workers(0) <= MAX_SLOTS


def test_no_quota_is_the_affinity(tmp_path: Path, own: Path) -> None:
    """Without any quota all CPUs of the affinity mask count."""
    write(tmp_path / "fs", "a/b", "max 100000\n")
    assert usable_cpus(str(tmp_path / "fs"), str(own)) == ALLOWED
    assert usable_cpus(str(tmp_path / "nothing"), str(own)) == ALLOWED


def test_the_quota_of_a_group_above_counts(tmp_path: Path, own: Path) -> None:
    """A slice's quota bounds everything in it; half a CPU is one worker."""
    write(tmp_path / "fs", "a/b", "max 100000\n")
    write(tmp_path / "fs", "a", "50000 100000\n")
    assert usable_cpus(str(tmp_path / "fs"), str(own)) == 1


def test_a_part_of_a_cpu_is_rounded_up(tmp_path: Path, own: Path) -> None:
    """1.5 CPUs are two workers, where there are two."""
    write(tmp_path / "fs", "a/b", "150000 100000\n")
    assert usable_cpus(str(tmp_path / "fs"), str(own)) == min(2, ALLOWED)


def test_the_old_hierarchy_counts_too(tmp_path: Path, own: Path) -> None:
    """Cgroup v1 says it in two files; -1 is no limit."""
    (own / "cgroup").write_text("4:cpu,cpuacct:/x\n")
    group = tmp_path / "fs" / "cpu,cpuacct" / "x"
    group.mkdir(parents=True)
    (group / "cpu.cfs_quota_us").write_text("-1\n")
    (group / "cpu.cfs_period_us").write_text("100000\n")
    assert usable_cpus(str(tmp_path / "fs"), str(own)) == ALLOWED
    (group / "cpu.cfs_quota_us").write_text("100000\n")
    assert usable_cpus(str(tmp_path / "fs"), str(own)) == 1


def test_a_group_may_have_any_name(tmp_path: Path, own: Path) -> None:
    """Its name is bytes, as every file's."""
    (own / "cgroup").write_bytes(b"0::/a/\xff\n")
    write(tmp_path / "fs", os.fsdecode(b"a/\xff"), "50000 100000\n")
    assert usable_cpus(str(tmp_path / "fs"), str(own)) == 1


def test_garbage_is_no_quota(tmp_path: Path, own: Path) -> None:
    """What cannot be read bounds nothing."""
    write(tmp_path / "fs", "a/b", "nonsense\n")
    assert usable_cpus(str(tmp_path / "fs"), str(own)) == ALLOWED


def test_descriptors_for_all_workers_are_asked_for_at_start(tmp_path: Path) -> None:
    """The answer says how many would do; without /proc a child could close nothing."""
    own = tmp_path / "self"
    (own / "fd").mkdir(parents=True)
    assert find_obstacle(60, workers=4, listen=1, own=str(own)) == ""
    assert "expected at least 60" in find_obstacle(59, workers=4, listen=1, own=str(own))
    assert "/proc" in find_obstacle(60, workers=4, listen=1, own=str(tmp_path))


def test_what_workers_do_not_need_is_shared() -> None:
    """Nobody gets nothing, and something is left for everything else."""
    assert share_out(60, workers=4, listen=1) == Shares(probes=4, lookups=2, handshakes=1, admin=2)
    assert share_out(64, workers=2, listen=1) == Shares(probes=11, lookups=5, handshakes=2, admin=5)
    assert share_out(1050, workers=4, listen=1).probes == 400


def test_a_master_that_goes_on_with_too_few_has_some_of_each() -> None:
    """With none for the admin address each client of it was an internal error."""
    assert share_out(40, workers=4, listen=1) == Shares(probes=4, lookups=2, handshakes=1, admin=2)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (errno.EMFILE, "Too many open files (/x): the limit of open files of this process is "),
        (errno.ENFILE, "Too many open files in system (/x): the host has as many open files as "),
        (errno.ENOMEM, "Cannot allocate memory (/x): the host or the control group has no memory"),
        (errno.ENOBUFS, "No buffer space available (/x): the host or the control group has no mem"),
        (errno.EAGAIN, "Resource temporarily unavailable (/x): the user or the control group has"),
        (errno.EFBIG, "File too large (/x): the limit of the size of files of this process is -1"),
        (errno.EACCES, "[Errno 13] Permission denied: '/x'"),
    ],
)
def test_a_shortage_is_told_with_its_limit(code: int, said: str) -> None:
    """Other errors are told as they are."""
    assert describe_shortage(OSError(code, os.strerror(code), "/x")).startswith(said)


def test_a_shortage_without_a_file() -> None:
    """Most calls have none."""
    error = OSError(errno.ENFILE, "Too many open files in system")
    assert describe_shortage(error).startswith("Too many open files in system: the host")
    error = OSError(errno.ENOSPC, "No space left on device")
    assert describe_shortage(error).endswith(
        ": the user watches as many descriptors as fs.epoll.max_user_watches allows"
    )
    error = OSError(errno.ENOSPC, "No space left on device", "/x")
    assert describe_shortage(error) == "[Errno 28] No space left on device: '/x'"
