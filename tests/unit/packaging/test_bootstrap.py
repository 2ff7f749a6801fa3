"""The first step of the one file: where it unpacks, what it refuses, what it removes."""

from __future__ import annotations

import io
import os
import posix
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from deploy.distribution import bootstrap
from deploy.distribution.bootstrap import (
    CONTENT_ID,
    KEPT,
    RefusedError,
    check_host,
    find_home,
    forget_old,
    publish,
    unpack_once,
)

HERE = os.uname()


@pytest.fixture(autouse=True)
def filled_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it stands in a file that was built here."""
    monkeypatch.setattr(bootstrap, "VERSIONS", "3.11 3.12")
    monkeypatch.setattr(bootstrap, "MACHINE", HERE.machine)


def test_a_host_that_it_was_made_for() -> None:
    """The right Python on the right machine is let through."""
    check_host("3.11", "cpython", HERE)


@pytest.mark.parametrize(
    ("version", "implementation", "machine", "message"),
    [
        ("3.10", "cpython", HERE.machine, "for CPython 3.11, 3.12, this is CPython 3.10; run it"),
        ("3.11", "pypy", HERE.machine, "this is pypy 3.11; run it as: python3.12 FILE"),
        ("3.11", "cpython", "sparc", f"for Linux on {HERE.machine}, this is Linux on sparc"),
    ],
)
def test_a_host_that_it_was_not_made_for(
    version: str, implementation: str, machine: str, message: str
) -> None:
    """The error says what the file is for and what was found."""
    uname = posix.uname_result(("Linux", "host", "6", "1", machine))
    with pytest.raises(RefusedError, match=message.replace(".", r"\.")):
        check_host(version, implementation, uname)


def test_it_is_parsed_by_old_pythons() -> None:
    """Pythons from 3.6 on get as far as the message: no syntax that is newer."""
    import ast

    ast.parse(Path(bootstrap.__file__).read_text(), feature_version=(3, 6))


@pytest.mark.parametrize(
    ("variables", "home"),
    [
        (["ETCD_GATEWAY_CACHE", "CACHE_DIRECTORY", "XDG_CACHE_HOME", "HOME"], "etcd_gateway_cache"),
        (["CACHE_DIRECTORY", "XDG_CACHE_HOME", "HOME"], "cache_directory"),
        (["XDG_CACHE_HOME", "HOME"], "xdg_cache_home/etcd-gateway"),
        (["HOME"], "home/.cache/etcd-gateway"),
    ],
)
def test_where_it_unpacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: list[str], home: str
) -> None:
    """Our own variable, the service manager's, the desktop's, the user's home: in this order."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    environ = {name: str(tmp_path / name.lower()) for name in variables}
    if "CACHE_DIRECTORY" in environ:
        environ["CACHE_DIRECTORY"] += f":{tmp_path}/second"
    assert find_home(environ) == str(tmp_path / home)
    assert (tmp_path / home).stat().st_mode & 0o777 == 0o700


def test_a_directory_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    """Whoever can write there could have the gateway run anything."""
    tmp_path.chmod(0o777)
    with pytest.raises(RefusedError, match="can be written to by others; set ETCD_GATEWAY_CACHE"):
        find_home({"ETCD_GATEWAY_CACHE": str(tmp_path)})


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    """The error names the directory, the reason and the variable."""
    (tmp_path / "file").write_text("")
    with pytest.raises(RefusedError, match=r"file/cache.*Not a directory; set ETCD_GATEWAY_CACHE"):
        find_home({"ETCD_GATEWAY_CACHE": str(tmp_path / "file" / "cache")})
    with pytest.raises(RefusedError, match='"cache" is not absolute'):
        find_home({"ETCD_GATEWAY_CACHE": "cache"})


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_directory_without_native_libraries(tmp_path: Path) -> None:
    """Nothing is unpacked where no program can be loaded from, and the reason is named."""
    mount = ["mount", "-t", "tmpfs", "-o", "noexec", "none", str(tmp_path)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    try:
        with pytest.raises(RefusedError, match="it is mounted noexec; set ETCD_GATEWAY_CACHE"):
            find_home({"ETCD_GATEWAY_CACHE": str(tmp_path / "cache")})
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_damaged_file(tmp_path: Path) -> None:
    """A part that is missing or was changed on the way is told in one line; nothing stays."""
    part = io.BytesIO()
    with zipfile.ZipFile(part, "w") as inner:
        inner.writestr("module.py", bytes(1000))
    for name, content in (("other.zip", b""), ("common.zip", part.getvalue())):
        archive = tmp_path / "g.pyz"
        with zipfile.ZipFile(archive, "w") as whole:
            whole.writestr(name, content)
        data = bytearray(archive.read_bytes())
        data[data.find(bytes(1000)) if content else 0] ^= 1
        archive.write_bytes(data)
        home = tmp_path / "home"
        home.mkdir(exist_ok=True)
        with pytest.raises(RefusedError, match=r'g.pyz" is damaged: .*; copy it anew'):
            unpack_once(str(archive), str(home))
        assert list(home.iterdir()) == []


def test_the_faster_of_two_first_runs_wins(tmp_path: Path) -> None:
    """The slower one uses what is there and leaves nothing behind."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "module").write_text("first")
    (tmp_path / "draft").mkdir()
    (tmp_path / "draft" / "module").write_text("second")
    publish(str(tmp_path / "draft"), str(tmp_path / "site"))
    assert (tmp_path / "site" / "module").read_text() == "first"
    assert not (tmp_path / "draft").exists()


def test_old_contents_are_removed(tmp_path: Path) -> None:
    """A few of the latest stay, for masters that still run; drafts of others are left alone."""
    for number in range(7):
        (tmp_path / f"{number}-cp311").mkdir()
        os.utime(tmp_path / f"{number}-cp311", (number, number))
    (tmp_path / "9-cp311.4711").mkdir()
    forget_old(str(tmp_path))
    kept = {path.name for path in tmp_path.iterdir()}
    assert kept == {"3-cp311", "4-cp311", "5-cp311", "6-cp311", "9-cp311.4711"}


def test_what_is_run_again_is_not_the_oldest(tmp_path: Path) -> None:
    """After a roll back the next release does not remove the one that runs."""
    site = tmp_path / f"{CONTENT_ID}-cp{sys.version_info.major}{sys.version_info.minor}"
    for number, path in enumerate([site, *(tmp_path / f"{n}-cp311" for n in range(KEPT))]):
        path.mkdir()
        os.utime(path, (number, number))
    assert unpack_once("/nowhere", str(tmp_path)) == str(site)
    forget_old(str(tmp_path))
    assert site.exists()
    assert not (tmp_path / "0-cp311").exists()


def test_it_needs_the_standard_library_alone() -> None:
    """It runs before anything is unpacked."""
    looked_for = "'click' in sys.modules, 'zipfile' in sys.modules"
    code = f"import deploy.distribution.bootstrap, sys; print({looked_for})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False"], done.stderr
