"""docs/upgrading.md: every command of the page, run in order on a machine with systemd."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from supervisor import __version__
from tests.generate import DOCS, ROOT
from tests.long_tests import only_long
from tests.stress.field import HOST, PORT, Field, prepared
from tests.stress.machine import UNIT, Machine, booted, why_not
from tests.stress.test_disturbances import needs_namespaces
from tests.support import wait_until

SETTINGS = {
    "LISTEN_ADDR": f"{HOST}:{PORT}",
    "WORKERS": "2",
    "ENDPOINTS": "127.0.0.1:2379",
    "DRAIN_TIMEOUT": "2s",
}

PRELUDE = """\
export PATH=/opt/python/bin:$PATH PIP_NO_INDEX=1 PIP_NO_DEPS=1 PIP_FIND_LINKS=/opt/releases
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
"""
"""The releases are made here, and the libraries are lent by the tests' environment."""

pytestmark = [
    needs_namespaces,
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
    pytest.mark.timeout(600),
    only_long,
    pytest.mark.slow,
]


def read_blocks() -> list[str]:
    """The commands of the page, block by block."""
    page = (DOCS / "upgrading.md").read_text()
    return [
        re.sub(r"^ {3}", "", block, flags=re.MULTILINE)
        for block in re.findall(r"^ *```sh\n(.*?)^ *```", page, re.DOTALL | re.MULTILINE)
    ]


def build_release(version: str, into: Path) -> None:
    """A wheel of the gateway that calls itself ``version``."""
    source = into / f"source-{version}"
    for name in ("gateway", "supervisor"):
        shutil.copytree(ROOT / name, source / name)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for extra in ("deploy", "docs", "CHANGELOG.md"):
        (source / extra).symlink_to(ROOT / extra)
    package = source / "supervisor/__init__.py"
    package.write_text(package.read_text().replace(__version__, version))
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    if all(map(importlib.util.find_spec, ("hatchling", "hatch_fancy_pypi_readme"))):
        pip.append("--no-build-isolation")  # with `make .venv/.dist` they need not be fetched
    pip.append("--wheel-dir")
    subprocess.run([*pip, str(into), str(source)], check=True, timeout=300)


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Field]:
    with prepared(tmp_path, 0.001) as ground:
        yield ground


@pytest.fixture
def machine(ground: Field, tmp_path: Path) -> Iterator[Machine]:
    """A machine without the gateway, and two releases to install."""
    with booted(ground.folder, ground.far, SETTINGS) as machine:
        ground.admin = machine.path("/run/etcd-gateway/admin.sock")
        machine.run("rm", "-r", "/opt/etcd-gateway", "/usr/local/bin/etcd-gateway")
        machine.use()
        wheels = tmp_path / "wheels"
        wheels.mkdir()
        for version in ("1.0.0", "1.1.0"):
            build_release(version, wheels)
        machine.path("/opt/releases").mkdir()
        for wheel in wheels.glob("*.whl"):
            shutil.copy(wheel, machine.path("/opt/releases"))
        yield machine


def run_block(machine: Machine, block: str) -> str:
    """Run it in a shell, command by command; an environment with the gateway is lent the rest."""
    said = ""
    for command in block.splitlines():
        said += machine.run("sh", "-ec", PRELUDE + command, timeout_s=300)
        if "pip install" in command:
            made = machine.path(command.partition("/bin/pip")[0])
            (site,) = made.glob("lib/python3*/site-packages")
            (site / "lent.pth").write_text("/opt/packages\n")
    return said


def serves(ground: Field, version: str) -> bool:
    """Whether a gateway of this version is ready, and no worker of another one is left."""
    document = ground.status()
    states = {each["state"] for each in document["workers"]}
    return bool(document["version"] == version and states == {"ready"})


def test_every_command_of_the_page(machine: Machine, ground: Field) -> None:
    """Install, upgrade by USR2 and by restart, roll back, remove: nothing fails, sessions begin."""
    install, new, check, switch, usr2, restart, status, back, rest = read_blocks()
    run_block(machine, install)
    wait_until(partial(serves, ground, "1.0.0"), 30, "the first release serves")
    run_block(machine, new)
    said = machine.run("sh", "-ec", PRELUDE + check)
    assert f"listen-addr {HOST}:{PORT}: in use by the running gateway" in said
    assert "1 of 1 endpoints can be used" in said
    pid = machine.show("MainPID")
    run_block(machine, switch)
    run_block(machine, usr2)
    wait_until(partial(serves, ground, "1.1.0"), 30, "the new release serves")
    assert machine.show("MainPID") == pid
    assert "etcd-gateway 1.1.0 on" in run_block(machine, status)
    run_block(machine, restart)
    wait_until(partial(serves, ground, "1.1.0"), 30, "it serves after a restart")
    *going_back, last = back.splitlines()
    run_block(machine, "\n".join(going_back))
    wait_until(partial(serves, ground, "1.0.0"), 30, "the old release serves again")
    assert "etcd-gateway 1.0.0 on" in run_block(machine, last)
    run_block(machine, rest)
    assert machine.show("ActiveState") == "active", UNIT
