"""The wheel and the source distribution: complete, installable, equal in every build."""

from __future__ import annotations

import email
import importlib.util
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from deploy.distribution import compiled
from deploy.distribution.trees import ROOT
from supervisor import __version__
from tests.gateway import environment

TOOLS = ("build", "hatchling", "hatch_fancy_pypi_readme", "twine")
MISSING = [tool for tool in TOOLS if importlib.util.find_spec(tool) is None]

pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason="needs the tools of `make .venv/.dist`"),
    pytest.mark.timeout(600),
]


def build(folder: Path) -> tuple[Path, Path]:
    """Wheel and source distribution of this repository."""
    argv = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    env = environment({"SOURCE_DATE_EPOCH": "1700000000"})
    done = subprocess.run(argv, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl")), next(folder.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return build(tmp_path_factory.mktemp("dist"))


def test_twine_has_no_complaint(built: tuple[Path, Path]) -> None:
    """An index would take both, and show the README."""
    argv = [sys.executable, "-m", "twine", "check", "--strict", *map(str, built)]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_two_builds_are_equal(built: tuple[Path, Path], tmp_path: Path) -> None:
    """Byte by byte."""
    for first, second in zip(built, build(tmp_path / "again"), strict=True):
        assert first.read_bytes() == second.read_bytes(), first.name


def test_the_metadata_is_true(built: tuple[Path, Path]) -> None:
    """One version everywhere, and no classifier that promises more than it says."""
    with zipfile.ZipFile(built[0]) as wheel:
        text = wheel.read(f"etcd_gateway-{__version__}.dist-info/METADATA").decode()
    metadata = email.message_from_string(text)
    assert metadata["Version"] == __version__
    unfinished = "dev" in __version__
    classifiers = metadata.get_all("Classifier") or []
    assert ("Development Status :: 5 - Production/Stable" in classifiers) != unfinished
    readme = metadata.get_payload()
    assert isinstance(readme, str)
    assert readme.startswith("# etcd-gateway")
    assert re.findall(r"\]\((?!https?:)[^)]*\)", readme) == []


def test_the_source_distribution_is_complete(built: tuple[Path, Path]) -> None:
    """Whoever unpacks it can run and test it, and finds the rules for both."""
    with tarfile.open(built[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"README.md", "LICENSE", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "Makefile"}
    wanted |= {"CODE_OF_CONDUCT.md", "tests/requirements.txt", "deploy/requirements.txt"}
    wanted |= {"deploy/distribution/requirements.txt", "supervisor/master.py", "gateway/worker.py"}
    assert wanted <= names
    if shutil.which("git"):  # the tests read most of what is tracked
        argv = ["git", "-C", str(ROOT), "ls-files"]
        tracked = subprocess.run(argv, capture_output=True, text=True).stdout
        assert set(tracked.splitlines()) <= names
    assert not any(name.startswith((".venv", "dist/")) for name in names)


@pytest.mark.slow(seconds=60)
@pytest.mark.skipif(bool(compiled.find_missing()), reason="needs a C compiler and Python.h")
def test_a_wheel_with_the_compiled_relay(tmp_path: Path) -> None:
    """Asked for by a variable: for this Python and machine, with the sources beside."""
    argv = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path)]
    env = environment({"HATCH_BUILD_HOOK_ENABLE_CUSTOM": "true"})
    done = subprocess.run([*argv, str(ROOT)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = tmp_path.glob("*.whl")
    assert not path.name.endswith("-none-any.whl")
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    with zipfile.ZipFile(path) as wheel:
        names = set(wheel.namelist())
    native = {f"{module}{suffix}" for module in compiled.MODULES}
    assert {name for name in names if name.endswith(".so")} == native
    assert {f"{module}.py" for module in compiled.MODULES} <= names


@pytest.mark.slow
def test_it_installs_with_the_pinned_libraries(built: tuple[Path, Path], tmp_path: Path) -> None:
    """In a fresh environment, with hashes checked, the command works."""
    home = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(home / "bin/python")]
    install = [*pip, "install", "--quiet", "--no-compile"]  # it runs once
    pins = ROOT / "deploy/requirements.txt"
    subprocess.run([*install, "--require-hashes", "-r", str(pins)], check=True, timeout=300)
    subprocess.run([*install, "--no-deps", str(built[0])], check=True, timeout=300)
    subprocess.run([*pip, "check"], check=True, timeout=60)
    command = [str(home / "bin/etcd-gateway"), "--version"]
    said = subprocess.run(command, capture_output=True, text=True, env=environment()).stdout
    assert said == f"etcd-gateway {__version__}\n"


def test_the_version_is_in_one_place() -> None:
    """The changelog names the release that the version leads to; no other file repeats it."""
    release = re.match(r"\d+\.\d+\.\d+", __version__)
    assert release is not None
    (first, *_) = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first.rstrip(",") == release[0]
    assert "version" in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dynamic"]
