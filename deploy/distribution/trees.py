"""The program with the libraries it needs, as a folder for each version of Python."""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "deploy" / "requirements.txt"
VERSIONS = ("3.11", "3.12", "3.13")
"""The versions of Python whose native libraries are handed out."""

NO_COMMIT = 1_700_000_000
"""The time of every file made from sources of which no commit is known; the Makefile's too."""

LEFT_OUT = ("bin/", "share/")
LEFT_OUT_SUFFIXES = (".pyc", ".pyx", ".pxd", ".pxi", ".pyi", ".c", ".h")
"""Scripts of libraries, and sources that only their build needs."""
LEFT_OUT_NAMES = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"}
"""What pip notes about an installation; it differs from build to build."""

Tree = Mapping[str, bytes]
"""Content by path, in the order of the paths."""


def parse_folder(description: str | None, argv: Sequence[str] | None = None) -> Path:
    """The argument of a command that makes something: where to; exits with 2 without one."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("folder", type=Path, help="what is made is written into it")
    folder: Path = parser.parse_args(argv).folder
    return folder


def read_epoch() -> int:
    """The time of every file made, in seconds since 1970: the commit's, so builds are equal."""
    if text := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(text)
    if shutil.which("git") is None:  # a source distribution is built without it
        return NO_COMMIT
    argv = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    return int(done.stdout) if done.returncode == 0 else NO_COMMIT


def run(argv: list[str], environ: Mapping[str, str]) -> None:
    """Run a tool; what it says is shown only if it fails, which ends the build."""
    done = subprocess.run(
        argv, check=False, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        raise SystemExit(f"{done.stdout}\nfailed: {' '.join(argv)}")


def build_wheel(folder: Path) -> Path:
    """Our own wheel, built into ``folder``."""
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir"]
    environ = {**os.environ, "SOURCE_DATE_EPOCH": str(read_epoch())}
    run([*pip, str(folder), str(ROOT)], environ)
    (wheel,) = folder.glob("etcd_gateway-*.whl")
    return wheel


def collect(wheel: Path, version: str) -> Tree:
    """Our wheel and the pinned libraries for this version of Python."""
    with tempfile.TemporaryDirectory(prefix="etcd-gateway-tree-") as name:
        folder = Path(name)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"]
        pip += [f"--python-version={version}", "--only-binary=:all:", "--target", str(folder)]
        for wanted in (["--require-hashes", "-r", str(REQUIREMENTS)], [str(wheel)]):
            run([*pip, "--upgrade", *wanted], os.environ)
        return dict(_files(folder))


def _files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or name.startswith(LEFT_OUT) or path.name in LEFT_OUT_NAMES:
            continue
        if not name.endswith(LEFT_OUT_SUFFIXES) or ".dist-info/" in name:
            yield name, path.read_bytes()


def share(trees: Mapping[str, Tree]) -> dict[str, Tree]:
    """The same, with files that all versions have in common apart, under ``common``."""
    first, *others = trees.values()
    common = {
        name: content
        for name, content in first.items()
        if all(other.get(name) == content for other in others)
    }
    shared: dict[str, Tree] = {"common": common}
    for version, tree in trees.items():
        own = {name: content for name, content in tree.items() if name not in common}
        shared["cp" + version.replace(".", "")] = own
    return shared


def digest(trees: Mapping[str, Tree]) -> str:
    """An id of all paths and contents."""
    sums = hashlib.sha256()
    for part, tree in sorted(trees.items()):
        for name, content in sorted(tree.items()):
            sums.update(f"{part}/{name}\0{len(content)}\0".encode() + content)
    return sums.hexdigest()[:16]


def write(tree: Tree, folder: Path, epoch: int) -> None:
    """The tree as files, all with the same time."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in tree.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (epoch, epoch))
