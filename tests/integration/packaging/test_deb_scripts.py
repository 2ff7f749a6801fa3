"""What the Debian package does to a host, whose folders are stand-ins in a mount namespace."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from deploy.distribution.deb import TEMPLATES

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root and unshare"
)

FOLDERS = ("opt", "run", "var/cache", "var/lib")
MASKED = "var/lib/systemd/deb-systemd-helper-masked/etcd-gateway.service"
"""Made by ``deb-systemd-helper mask``, in a removal."""

RECORDER = """\
#!/bin/sh
echo "${{0##*/}}" "$@" >> {calls}
case "$*" in
list-units*--state=active,reloading*) echo etcd-gateway.service loaded reloading ;;
list-units*--all*) echo etcd-gateway@blue.service loaded ;;
esac
"""


def run(script: str, action: str, host: Path) -> list[str]:
    """Run a script of the package where ``host`` has the folders that it may touch.

    The commands about units that it ran. There is an instance of the template, and the service
    reloads at that moment.
    """
    tools, calls = host / "tools", host / "calls"
    tools.mkdir(exist_ok=True)
    calls.touch()
    for name in ("deb-systemd-helper", "deb-systemd-invoke", "systemctl"):
        (tools / name).write_text(RECORDER.format(calls=calls))
        (tools / name).chmod(0o755)
    mounts = "".join(f"mount --bind {host / name} /{name} && " for name in FOLDERS)
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f"{mounts} exec sh {TEMPLATES / script} {action}"],
        env={"PATH": f"{tools}:/usr/sbin:/usr/bin:/sbin:/bin"},
        capture_output=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    shutil.rmtree(tools)
    said = calls.read_text().splitlines()
    calls.unlink()
    return said


@pytest.fixture
def host(tmp_path: Path) -> Path:
    for name in FOLDERS:
        (tmp_path / name).mkdir(parents=True)
    compiled = tmp_path / "opt/etcd-gateway/lib/python3.11/site-packages/gateway/__pycache__"
    compiled.mkdir(parents=True)
    (compiled / "worker.cpython-311.pyc").touch()
    return tmp_path


def names(host: Path) -> set[str]:
    """Files and links, and no folders."""
    found = (each for each in host.rglob("*") if each.is_symlink() or not each.is_dir())
    return {each.relative_to(host).as_posix() for each in found}


def test_compiled_modules_go_with_the_package(host: Path) -> None:
    """What postinst made is not left over."""
    run("prerm", "remove", host)
    assert names(host) == set()
    run("postrm", "remove", host)
    assert not (host / "opt/etcd-gateway").exists()


def test_releases_that_were_installed_by_hand_stay(host: Path) -> None:
    """They are in the same folder, by docs/upgrading.md, and may be what serves."""
    by_hand = host / "opt/etcd-gateway/1.0.0/lib/python3.11/site-packages/gateway/__pycache__"
    by_hand.mkdir(parents=True)
    (by_hand / "worker.cpython-311.pyc").touch()
    (host / "opt/etcd-gateway/current").symlink_to("1.0.0")
    before = names(host)
    for script, action in (("prerm", "remove"), ("postrm", "remove"), ("postrm", "purge")):
        run(script, action, host)
    gone = before - names(host)
    assert gone == {name for name in before if name.startswith("opt/etcd-gateway/lib/")}


def test_a_purge_takes_what_the_units_kept(host: Path) -> None:
    """The caches of the unit and of its instances, and nobody else's."""
    for name in ("etcd-gateway", "etcd-gateway@blue", "etcd-gateway-exporter"):
        (host / "var/cache/private" / name).mkdir(parents=True)
        (host / "var/cache" / name).symlink_to(f"private/{name}")
    run("postrm", "purge", host)
    assert {path.name for path in (host / "var/cache").glob("etcd*")} == {"etcd-gateway-exporter"}
    private = host / "var/cache/private"
    assert {path.name for path in private.iterdir()} == {"etcd-gateway-exporter"}


@pytest.mark.parametrize("removed", [False, True], ids=["an upgrade", "a removal, and again"])
def test_what_a_removal_stopped_is_started(host: Path, removed: bool) -> None:
    """dpkg names the last version in both cases, and only what serves can be upgraded in place."""
    (host / "run/systemd/system").mkdir(parents=True)
    (host / "opt/etcd-gateway/bin").mkdir()
    (host / "opt/etcd-gateway/bin/python3").symlink_to("/bin/true")
    (host / MASKED).parent.mkdir(parents=True)
    if removed:
        (host / MASKED).touch()
    calls = run("postinst", "configure 1.0.0", host)
    started = [call.split()[-1] for call in calls if call.startswith("deb-systemd-invoke start")]
    units = ["etcd-gateway.service", "etcd-gateway@blue.service"]
    assert started == (units if removed else [])
    assert any("USR2" in call for call in calls) is not removed


@pytest.mark.parametrize(("version", "made"), [(252, []), (254, ["50-restart-steps.conf"])])
def test_the_generator_turns_on_what_systemd_knows(
    tmp_path: Path, version: int, made: list[str]
) -> None:
    """And not notify-reload.conf, with which ``systemctl reload`` never fails."""
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(f"#!/bin/sh\necho 'systemd {version} ({version}.1-1)'\n")
    systemctl.chmod(0o755)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    argv = ["sh", str(TEMPLATES / "generator"), str(tmp_path / "made")]
    subprocess.run(argv, env=env, check=True, timeout=60)
    assert [path.name for path in (tmp_path / "made").glob("etcd-gateway.service.d/*")] == made
