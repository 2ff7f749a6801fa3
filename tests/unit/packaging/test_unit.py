"""The shipped systemd unit: accepted by systemd, and in agreement with the README."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from supervisor.core.config import Config
from supervisor.handover.systemd import least_watchdog_s
from tests.generate import ROOT

SYSTEMD = ROOT / "deploy" / "systemd"
UNITS = sorted(SYSTEMD.glob("*.service"))
DROP_INS = sorted((SYSTEMD / "drop-ins").glob("*.conf"))
NEWER = {"notify-reload.conf": 253, "restart-steps.conf": 254}
"""Drop-ins that need a newer systemd than the unit, by the version that knows their settings."""


def read(path: Path) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(strict=False, delimiters="=")
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(path.read_text())
    return parser


def systemd_version() -> int:
    """The version of systemd here; 0 if it has no ``systemd-analyze``."""
    if shutil.which("systemd-analyze") is None:
        return 0
    said = subprocess.run(["systemd-analyze", "--version"], capture_output=True, text=True).stdout
    return int(said.split()[1])


def host(folder: Path, unit: Path) -> Path:
    """The root of a host as the README leaves it: the command and the unit."""
    for source, target in (
        (unit, folder / "etc/systemd/system" / unit.name),
        (Path("/bin/true"), folder / "usr/local/bin/etcd-gateway"),
    ):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    targets = "sysinit shutdown basic network-online nss-lookup multi-user"
    for name in (*(f"{each}.target" for each in targets.split()), "system.slice"):
        (folder / "etc/systemd/system" / name).write_text("[Unit]\nDefaultDependencies=no\n")
    return folder


def verify(root: Path, unit: str) -> str:
    """What ``systemd-analyze verify`` has to say; it is silent about a good unit."""
    argv = ["systemd-analyze", "verify", "--man=no", f"--root={root}", unit]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr + (f"exit {done.returncode}" if done.returncode else "")


needs_systemd = pytest.mark.skipif(systemd_version() < 250, reason="needs systemd-analyze >= 250")


@needs_systemd
@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_systemd_accepts_the_unit(unit: Path, tmp_path: Path) -> None:
    """systemd finds the command where the README installs it, and has no complaint."""
    name = unit.name.replace("@.", "@blue.")
    assert verify(host(tmp_path, unit), name) == ""


@pytest.mark.parametrize("kind", ["RuntimeDirectory", "CacheDirectory"])
def test_no_unit_has_a_folder_in_another_ones(kind: str) -> None:
    """systemd cannot make the link for the outer one then, and removes the inner one with it."""
    folders = [read(unit)["Service"][kind].replace("%i", "blue") for unit in UNITS]
    assert len({folder.partition("/")[0] for folder in folders}) == len(UNITS) == 2


@pytest.mark.parametrize("drop_in", DROP_INS, ids=lambda path: path.name)
def test_no_default_of_a_drop_in_is_beaten_by_the_sample_of_variables(drop_in: Path) -> None:
    """A variable in /etc/default/etcd-gateway beats the drop-in, unless that takes it away."""
    lines = drop_in.read_text().splitlines()
    meant = {m[1] for line in lines if (m := re.match(r"Environment=GATEWAY_DEFAULT_(\w+)=", line))}
    gone = {m[1] for line in lines if (m := re.match(r"UnsetEnvironment=GATEWAY_(\w+)", line))}
    sample = (ROOT / "deploy/etcd-gateway.default").read_text()
    assert meant & set(re.findall(r"^GATEWAY_(\w+)=", sample, re.MULTILINE)) <= gone


@needs_systemd
@pytest.mark.parametrize("drop_in", DROP_INS, ids=lambda path: path.name)
def test_systemd_accepts_the_drop_in(drop_in: Path, tmp_path: Path) -> None:
    """Each drop-in is accepted by the systemd versions that its comment names."""
    least = NEWER.get(drop_in.name, 250)
    assert least == 250 or f"systemd {least} and newer" in drop_in.read_text()
    if systemd_version() < least:
        pytest.skip(f"needs systemd {least}")
    root = host(tmp_path, SYSTEMD / "etcd-gateway.service")
    folder = root / "etc/systemd/system/etcd-gateway.service.d"
    folder.mkdir()
    shutil.copy(drop_in, folder)
    assert verify(root, "etcd-gateway.service") == ""


@needs_systemd
def test_verify_notices_a_mistake(tmp_path: Path) -> None:
    """The check above is able to fail: a missing command is reported."""
    root = host(tmp_path, SYSTEMD / "etcd-gateway.service")
    (root / "usr/local/bin/etcd-gateway").unlink()
    assert "etcd-gateway" in verify(root, "etcd-gateway.service")


def test_copying_the_folder_puts_no_drop_in_live() -> None:
    """``cp -r deploy/systemd/. /etc/systemd/system/`` installs units and nothing optional."""
    assert DROP_INS
    assert [path for path in SYSTEMD.rglob("*") if path.is_dir() and path.suffix == ".d"] == []
    assert [path.name for path in SYSTEMD.glob("*.conf")] == []


def test_the_table_of_drop_ins_is_complete() -> None:
    """The page on the unit says of every drop-in when it is for you."""
    table = re.findall(r"^\| `([\w-]+\.conf)`", (SYSTEMD / "README.md").read_text(), re.MULTILINE)
    assert sorted(table) == [path.name for path in DROP_INS]


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_the_unit_leaves_the_admin_address_to_the_config_file(unit: Path) -> None:
    """What the unit sets as a plain variable is what the unit itself depends on."""
    text = unit.read_text()
    assert re.findall(r"^Environment=.*GATEWAY_(?!DEFAULT_)(\w+)=", text, re.MULTILINE) == [
        "HANDOVER"
    ]


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_a_failed_start_is_not_repeated_at_once(unit: Path) -> None:
    """Starts that fail are a second apart, and wrong usage is not tried again."""
    service = read(unit)["Service"]
    assert service["RestartSec"] == "1s"
    assert service["RestartPreventExitStatus"] == "2"


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_the_only_worker_is_replaced_before_the_master_is_killed(unit: Path) -> None:
    """Else the next master keeps the worker that hangs, and is killed for it, again and again."""
    least_s = least_watchdog_s(Config().worker_timeout_s)
    assert float(read(unit)["Service"]["WatchdogSec"]) >= least_s


def test_the_readme_installs_the_command_where_the_unit_looks() -> None:
    """The unit names no path, so systemd looks in /usr/local/bin, where the README puts it."""
    assert read(SYSTEMD / "etcd-gateway.service")["Service"]["ExecStart"] == "etcd-gateway start"
    assert "/usr/local/bin/etcd-gateway" in (ROOT / "README.md").read_text()


def test_pages_have_no_option_that_is_newer_than_the_unit() -> None:
    """systemd 252 renamed one of ``systemctl kill``, and still knows it by its old name."""
    pages = [*(ROOT / "docs").glob("*.md"), *SYSTEMD.glob("*.md"), ROOT / "README.md"]
    told = {page.name: page.read_text() for page in pages if page.name != "promises.md"}
    assert [name for name, text in told.items() if "--kill-whom" in text] == []
