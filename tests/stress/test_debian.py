"""The Debian package in a Debian of its own, booted with that release's systemd.

A release is made by debootstrap once and kept in the folder for temporary files.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from deploy.distribution import deb
from tests.long_tests import only_long
from tests.stress.field import HOST, PORT, Field, answer_still, prepared
from tests.stress.machine import UNIT, Machine, booted_debian, why_not
from tests.stress.test_disturbances import RATE, SECONDS, check, needs_namespaces
from tests.support import wait_until

RELEASES = ("bookworm", "trixie")
INCLUDED = "systemd,dbus,python3,iproute2"
KEPT = Path(tempfile.gettempdir()) / "etcd-gateway-debian"

pytestmark = [
    needs_namespaces,
    only_long,
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
    pytest.mark.skipif(shutil.which("debootstrap") is None, reason="needs debootstrap"),
    pytest.mark.own_cpu,
    pytest.mark.timeout(1800),
]


def mirror() -> str:
    """Where this machine's own apt gets Debian from."""
    argv = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Label: Debian"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    if not done.stdout.strip():
        pytest.skip("needs an apt that knows a mirror of Debian, after `apt-get update`")
    return done.stdout.split()[0]


def install_release(name: str, included: str = INCLUDED) -> Path:
    """The root of a minimal Debian of this release, with these packages."""
    root = KEPT / (name if included == INCLUDED else f"{name}-{included.replace(',', '-')}")
    if not root.exists():
        draft = KEPT / f"{name}.{os.getpid()}"
        draft.mkdir(parents=True)
        argv = ["debootstrap", "--variant=minbase", f"--include={included}", name, str(draft)]
        done = subprocess.run([*argv, mirror()], capture_output=True, text=True, timeout=1500)
        if done.returncode:
            shutil.rmtree(draft)
            pytest.skip(f"no Debian {name} to be had: {done.stdout.strip().splitlines()[-1]}")
        draft.rename(root)
    return root


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The package, and the same with a later version."""
    folder = tmp_path_factory.mktemp("packages")
    first = deb.build(folder)
    content = folder / "content"
    subprocess.run(["dpkg-deb", "-R", str(first), str(content)], check=True)
    control = content / "DEBIAN" / "control"
    control.write_text(re.sub(r"(?m)^Version: .*", "Version: 9.0", control.read_text()))
    second = folder / "etcd-gateway_9.0_amd64.deb"
    subprocess.run(["dpkg-deb", "-Znone", "-b", str(content), str(second)], check=True)
    return first, second


@pytest.fixture(params=RELEASES)
def machine(
    request: pytest.FixtureRequest, tmp_path: Path, packages: tuple[Path, Path], ground: Field
) -> Iterator[Machine]:
    """A booted Debian with both packages in /packages and none installed."""
    for package in packages:
        shutil.copy(package, tmp_path)
    with booted_debian(tmp_path, ground.far, install_release(request.param)) as machine:
        ground.admin = machine.path("/run/etcd-gateway/admin.sock")
        yield machine


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Field]:
    """An endpoint, 20 ms away from the client."""
    with prepared(tmp_path, 0.010) as ground:
        yield ground


def install(machine: Machine, version: str) -> str:
    return machine.run(
        "sh", "-c", f"dpkg -i /packages/etcd-gateway_{version}_amd64.deb", timeout_s=300
    )


def processes(machine: Machine) -> str:
    return machine.run(
        "sh", "-c", f"cat /sys/fs/cgroup/system.slice/{UNIT}/cgroup.procs 2> /dev/null", check=False
    )


def test_install_upgrade_and_purge(machine: Machine, ground: Field) -> None:
    """From nothing to a service, to the next version without a client lost, and back to nothing."""
    before = machine.run("sh", "-c", "find /etc /opt /usr /var/cache -xdev | sort")
    install(machine, "1*")
    assert machine.show("ActiveState") == "active"
    assert machine.ctl("is-enabled", UNIT) == "enabled"
    assert machine.run("systemd-analyze", "verify", "--man=no", UNIT) == ""

    config = f'endpoints = ["127.0.0.1:2379"]\nlisten-addr = ["{HOST}:{PORT}"]\nworkers = 4\n'
    machine.path("/etc/etcd-gateway.toml").write_text(config)
    machine.ctl("restart", UNIT)
    wait_until(ground.is_ready)
    machine.ctl("reload", UNIT)
    machine.path("/etc/etcd-gateway.toml").write_text("nonsense")
    with pytest.raises(AssertionError, match=r"reload failed: .* expected TOML"):
        machine.ctl("reload", UNIT)
    machine.path("/etc/etcd-gateway.toml").write_text(config)
    machine.ctl("reload", UNIT)

    workers = {each["pid"] for each in ground.workers()}
    master = machine.show("MainPID")
    with ground.long_sessions(20) as sessions:
        client = ground.client(RATE, SECONDS)
        install(machine, "9*")
        check(ground, client)
        wait_until(partial(ground.is_replaced, workers), 60, "new workers serve")
        assert answer_still(sessions)
    assert machine.show("MainPID") == master
    assert machine.path("/etc/etcd-gateway.toml").read_text() == config

    machine.run("dpkg", "--remove", "etcd-gateway", timeout_s=300)
    assert machine.show("ActiveState") == "inactive"
    install(machine, "9*")
    assert machine.show("ActiveState") == "active"

    machine.run("dpkg", "--purge", "etcd-gateway", timeout_s=300)
    after = machine.run("sh", "-c", "find /etc /opt /usr /var/cache -xdev | sort")
    left = set(after.splitlines()) - set(before.splitlines())
    assert left == set()
    wait_until(lambda: not processes(machine).split(), 60, "the last worker left")
