"""The Debian package: what is in it, and what Debian's own checker says."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.distribution import deb
from deploy.distribution.deb import CONFFILES, SHELLS
from tests.integration.packaging.collected import collected_once
from tests.long_tests import only_long

pytestmark = [
    pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb"),
    only_long,
    pytest.mark.slow,
    pytest.mark.timeout(900),
]


def ask(*argv: str | Path) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=300).stdout


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with collected_once(tmp_path_factory):
        yield deb.build(tmp_path_factory.mktemp("deb"), ("3.11",))


def test_it_has_everything(package: Path) -> None:
    """Program, units, configuration, man pages and completions are where Debian looks."""
    listing = ask("dpkg-deb", "-c", package)
    names = {line.split()[5].removeprefix("./") for line in listing.splitlines()}
    wanted = {*CONFFILES, *SHELLS.values(), "usr/bin/etcd-gateway", "opt/etcd-gateway/pyvenv.cfg"}
    wanted |= {
        "usr/lib/systemd/system/etcd-gateway.service",
        "usr/lib/systemd/system/etcd-gateway@.service",
        "usr/share/man/man1/etcd-gateway.1.gz",
        "usr/share/man/man5/etcd-gateway.toml.5.gz",
        "usr/share/doc/etcd-gateway/copyright",
    }
    assert wanted <= names
    assert all(line.split()[1] == "root/root" for line in listing.splitlines())


def test_its_version_comes_before_the_release(package: Path) -> None:
    """A development version is replaced by its release."""
    version = ask("dpkg-deb", "-f", package, "Version").strip()
    if "~" not in version:
        pytest.skip("this is a release")
    ask("dpkg", "--compare-versions", version, "lt", version.partition("~")[0])


def test_each_shell_gets_its_completion(package: Path, tmp_path: Path) -> None:
    """The files are the ones that the command prints."""
    ask("dpkg-deb", "-x", package, tmp_path)
    for name in SHELLS.values():
        assert "etcd-gateway" in (tmp_path / name).read_text(), name


@pytest.mark.skipif(shutil.which("lintian") is None, reason="needs lintian")
def test_lintian_has_no_complaint(package: Path) -> None:
    """But for those that the package overrides, each with its reason."""
    argv = ["lintian", "--allow-root", "--fail-on", "error,warning", str(package)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300)
    lines = [line for line in done.stdout.splitlines() if line[:2] in ("E:", "W:")]
    assert lines == []


@pytest.mark.parametrize("script", ["postinst", "prerm", "postrm", "generator"])
def test_the_scripts_are_posix(script: str) -> None:
    """Debian's shell parses them."""
    ask("sh", "-n", deb.TEMPLATES / script)
