"""The one file as an operator has it: no installation, an interpreter, a cache directory."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.distribution import onefile
from deploy.distribution.trees import ROOT
from supervisor import __version__
from tests.backends import Backend, echo
from tests.clients import connect, talk
from tests.gateway import READY, Gateway
from tests.integration.packaging.collected import collected_once
from tests.long_tests import only_long
from tests.support import free_port, wait_until

EPOCH = "1700000000"
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def make(root: Path, folder: Path) -> Path:
    """The one file of the sources in ``root``, for this version of Python alone."""
    folder.mkdir()
    imports = "from pathlib import Path as P; from deploy.distribution.onefile import build"
    code = f"print(build(P('{folder}'), ('{VERSION}',)))"
    argv = [sys.executable, "-c", f"{imports}; {code}"]
    environ = {**os.environ, "SOURCE_DATE_EPOCH": EPOCH}
    done = subprocess.run(argv, cwd=root, env=environ, capture_output=True, text=True)
    if done.returncode:
        pytest.fail(done.stderr[-2000:])
    return Path(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def one_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with collected_once(tmp_path_factory), pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", EPOCH)
        yield onefile.build(tmp_path_factory.mktemp("onefile"), (VERSION,))


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """No PATH to our environment, no home, and nothing unpacked."""
    here = os.path.dirname(os.path.realpath(sys.executable))
    return {"PATH": f"{here}:/usr/bin:/bin", "ETCD_GATEWAY_CACHE": str(tmp_path / "cache")}


def run(*argv: str | Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, env=env, cwd="/", capture_output=True, text=True, timeout=120)


def test_it_runs_and_unpacks_once(one_file: Path, env: dict[str, str]) -> None:
    """Four first runs at once all work, and leave one directory for all later ones."""
    runs = [
        subprocess.Popen([one_file, "--version"], env=env, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    said = {process.communicate(timeout=120)[0] for process in runs}
    assert said == {f"etcd-gateway {__version__}\n"}
    cache = Path(env["ETCD_GATEWAY_CACHE"])
    (unpacked,) = cache.iterdir()
    before = unpacked.stat().st_ino
    nowhere = (f"--listen-addr=127.0.0.1:{free_port()}", "--endpoints=127.0.0.1:1")
    assert run(one_file, "check", *nowhere, env=env).returncode == 69
    assert unpacked.stat().st_ino == before


def test_nothing_of_the_environment_is_used(one_file: Path, env: dict[str, str]) -> None:
    """All modules but those of the standard library come out of the file."""
    code = (
        "import runpy, sys; sys.argv[1:] = ['--version']\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit: pass\n"
        "import aiohttp, uvloop, supervisor\n"
        "print(*(module.__file__ for module in (aiohttp, uvloop, supervisor)))"
    )
    done = run(
        sys.executable, "-I", "-c", f"import sys; sys.argv = ['{one_file}']; {code}", env=env
    )
    files = done.stdout.splitlines()[-1].split()
    assert all(file.startswith(env["ETCD_GATEWAY_CACHE"]) for file in files), done


def test_it_survives_usr2_and_a_new_file(
    one_file: Path, env: dict[str, str], tmp_path: Path
) -> None:
    """USR2 executes whatever file is there by then, sessions and clients notice nothing."""
    program = tmp_path / "etcd-gateway"
    shutil.copy(one_file, program)
    with (
        Backend(echo) as backend,
        Gateway(endpoints=[backend.address], command=[str(program)], env=env) as gateway,
    ):
        gateway.wait_ready(60)
        with connect(gateway.address) as session:
            talk(session, b"before")
            workers = gateway.workers()
            os.kill(workers[0], signal.SIGKILL)
            wait_until(lambda: set(gateway.workers()) - set(workers), what="another worker")
            shutil.copy(one_file, tmp_path / "new")
            (tmp_path / "new").rename(program)
            gateway.signal(signal.SIGUSR2)
            gateway.wait_line(READY, 60, count=2)
        with connect(gateway.address) as session:
            talk(session, b"after")
        assert Path(f"/proc/{gateway.pid}/exe").exists()


@only_long
def test_a_broken_new_file_leaves_the_old_one_serving(
    one_file: Path, env: dict[str, str], tmp_path: Path
) -> None:
    """An upgrade to a file that was copied by half is refused."""
    program = tmp_path / "etcd-gateway"
    shutil.copy(one_file, program)
    with (
        Backend(echo) as backend,
        Gateway(endpoints=[backend.address], command=[str(program)], env=env) as gateway,
    ):
        gateway.wait_ready(60)
        (tmp_path / "new").write_bytes(one_file.read_bytes()[:100_000])
        (tmp_path / "new").chmod(0o755)
        (tmp_path / "new").rename(program)
        gateway.signal(signal.SIGUSR2)
        wait_until(lambda: "upgrade failed" in gateway.text(), 60)
        with connect(gateway.address) as session:
            talk(session)


@only_long
@pytest.mark.parametrize("downloaded", [False, True])
def test_the_demo_works(
    one_file: Path, env: dict[str, str], tmp_path: Path, downloaded: bool
) -> None:
    """The demo starts its backends and the gateway out of the file, whatever its name and mode."""
    program: tuple[str | Path, ...] = (one_file,)
    if downloaded:
        (tmp_path / "gateway.pyz").write_bytes(one_file.read_bytes())
        program = (sys.executable, tmp_path / "gateway.pyz")
    done = run(*program, "demo", "--once", env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "NOT AS EXPECTED" not in done.stdout


def test_without_a_place_to_unpack_it_says_what_to_set(one_file: Path, env: dict[str, str]) -> None:
    """One line, and no traceback."""
    done = run(one_file, "--version", env=env | {"ETCD_GATEWAY_CACHE": "/proc/nowhere"})
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith('etcd-gateway: cannot unpack into "/proc/nowhere": ')
    assert "set ETCD_GATEWAY_CACHE" in line


@only_long
def test_other_pythons_are_told(one_file: Path, env: dict[str, str]) -> None:
    """An interpreter that the file was not made for ends with one line."""
    others = [
        path for minor in range(6, 20) if (path := find_python(minor)) and f"3.{minor}" != VERSION
    ]
    if not others:
        pytest.skip("needs another Python")
    for other in others:
        done = run(other, one_file, "--version", env=env)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"etcd-gateway: this file is for CPython {VERSION}, this is")
        assert len(done.stderr.splitlines()) == 1


def find_python(minor: int) -> str | None:
    installed = sorted(Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python"))
    return str(installed[-1]) if installed else shutil.which(f"python3.{minor}", path="/usr/bin")


def test_licences_are_in_it(one_file: Path, env: dict[str, str]) -> None:
    """The licence texts of everything that the file carries lie beside it."""
    run(one_file, "--version", env=env)
    (site,) = Path(env["ETCD_GATEWAY_CACHE"]).iterdir()
    for info in site.glob("*.dist-info"):
        texts = [path for path in info.rglob("*") if "licen" in path.name.lower()]
        licensed = "License" in (info / "METADATA").read_text()
        assert texts or licensed, info.name
    assert len(list(site.glob("*.dist-info"))) > 10


@only_long
def test_two_builds_are_equal(one_file: Path, tmp_path: Path) -> None:
    """The same sources in another directory make the same file, byte by byte."""
    copy = tmp_path / "elsewhere"
    left_out = shutil.ignore_patterns(
        ".venv", ".git", "__pycache__", "build", "dist", "site", ".*_cache", ".hypothesis"
    )
    shutil.copytree(ROOT, copy, ignore=left_out)
    assert make(copy, tmp_path / "dist").read_bytes() == one_file.read_bytes()
