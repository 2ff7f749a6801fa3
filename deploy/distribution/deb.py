"""The Debian package: ``python -m deploy.distribution.deb FOLDER`` writes it and prints its path.

One package for every Debian whose Python is supported: the virtual environment has the libraries
for each of them, and takes those of the Python that it finds. Needs ``dpkg-deb``, and no root.
"""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from email.utils import formatdate
from pathlib import Path

from deploy.distribution import trees
from deploy.distribution.trees import ROOT
from supervisor import __version__

TEMPLATES = ROOT / "deploy" / "distribution" / "debian"
SHELLS = {
    "bash": "usr/share/bash-completion/completions/etcd-gateway",
    "zsh": "usr/share/zsh/vendor-completions/_etcd-gateway",
    "fish": "usr/share/fish/vendor_completions.d/etcd-gateway.fish",
}
HOME = "opt/etcd-gateway"
DOC = "usr/share/doc/etcd-gateway"
UNITS = "usr/lib/systemd/system"
GENERATOR = "usr/lib/systemd/system-generators/etcd-gateway"
CONTROL_SCRIPTS = ("postinst", "prerm", "postrm")
CONFFILES = {
    "etc/default/etcd-gateway": "deploy/etcd-gateway.default",
    "etc/etcd-gateway.toml": "deploy/etcd-gateway.toml",
}

PYVENV = "home = /usr/bin\ninclude-system-site-packages = false\n"
SCRIPT = """\
#!/opt/etcd-gateway/bin/python3
import sys

from etcd_gateway import main

sys.exit(main())
"""


def debian_version() -> str:
    """Our version as dpkg orders it: a development version comes before its release."""
    return re.sub(r"\.?(dev|a|b|rc)", r"~\1", __version__)


def build(folder: Path, versions: tuple[str, ...] = trees.VERSIONS) -> Path:
    """Make the package in ``folder``, which must be there; its path."""
    if shutil.which("dpkg-deb") is None:
        raise SystemExit("the Debian package is built with dpkg-deb, which is not installed")
    epoch = trees.read_epoch()
    with tempfile.TemporaryDirectory(prefix="etcd-gateway-deb-") as name:
        wheel = trees.build_wheel(Path(name))
        stage = Path(name) / "stage"
        for version in versions:
            site = stage / HOME / f"lib/python{version}/site-packages"
            trees.write(trees.collect(wheel, version), site, epoch)
        _add_program(stage)
        _add_service(stage)
        _add_documentation(stage, epoch)
        _add_control(stage)
        _set_modes(stage)
        path = folder / f"etcd-gateway_{debian_version()}_amd64.deb"
        pack = ["dpkg-deb", "--root-owner-group", "-Zxz", "-z2", "--build", str(stage), str(path)]
        environ = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch)}
        subprocess.run(pack, check=True, env=environ, stdout=subprocess.DEVNULL)
    return path


def _put(stage: Path, name: str, content: str | bytes) -> None:
    path = stage / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def _add_program(stage: Path) -> None:
    _put(stage, f"{HOME}/pyvenv.cfg", PYVENV)
    _put(stage, f"{HOME}/bin/etcd-gateway", SCRIPT)
    (stage / HOME / "bin/python3").symlink_to("/usr/bin/python3")
    (stage / "usr/bin").mkdir(parents=True)
    (stage / "usr/bin/etcd-gateway").symlink_to(f"/{HOME}/bin/etcd-gateway")
    for shell, name in SHELLS.items():
        argv = [sys.executable, "-m", "deploy.distribution.completion", shell]
        done = subprocess.run(argv, cwd=ROOT, check=True, capture_output=True)
        _put(stage, name, done.stdout)


def _add_service(stage: Path) -> None:
    for unit in sorted((ROOT / "deploy/systemd").glob("*.service")):
        _put(stage, f"{UNITS}/{unit.name}", unit.read_bytes())
    for drop_in in sorted((ROOT / "deploy/systemd/drop-ins").glob("*.conf")):
        _put(stage, f"usr/share/etcd-gateway/drop-ins/{drop_in.name}", drop_in.read_bytes())
    _put(stage, GENERATOR, (TEMPLATES / "generator").read_bytes())
    for name, source in CONFFILES.items():
        _put(stage, name, (ROOT / source).read_bytes())


def _add_documentation(stage: Path, epoch: int) -> None:
    for page in sorted((ROOT / "deploy/man").iterdir()):
        section = page.suffix.removeprefix(".")
        _put(stage, f"usr/share/man/man{section}/{page.name}.gz", _compress(page.read_bytes()))
    _put(stage, f"{DOC}/changelog.gz", _compress((ROOT / "CHANGELOG.md").read_bytes()))
    date = formatdate(epoch)
    entry = (
        f"etcd-gateway ({debian_version()}) unstable; urgency=medium\n\n"
        f"  * What changed is in changelog.gz.\n\n"
        f" -- The etcd-gateway authors <root@localhost>  {date}\n"
    )
    _put(stage, f"{DOC}/changelog.Debian.gz", _compress(entry.encode()))
    _put(stage, f"{DOC}/copyright", _copyright(epoch))
    overrides = (TEMPLATES / "lintian-overrides").read_bytes()
    _put(stage, "usr/share/lintian/overrides/etcd-gateway", overrides)


def _compress(content: bytes) -> bytes:
    return gzip.compress(content, 9, mtime=0)


def _copyright(epoch: int) -> str:
    year = time.gmtime(epoch).tm_year
    return (
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n"
        "Upstream-Name: etcd-gateway\n"
        "Comment: The licences of the libraries are beside them, in the *.dist-info folders of\n"
        " /opt/etcd-gateway/lib.\n\n"
        f"Files: *\nCopyright: {year} The etcd-gateway authors\nLicense: Apache-2.0\n"
        " On Debian systems the text is in /usr/share/common-licenses/Apache-2.0.\n"
    )


def _add_control(stage: Path) -> None:
    size = sum(path.lstat().st_size for path in stage.rglob("*")) // 1024
    control = (TEMPLATES / "control").read_text()
    control = control.replace("@VERSION@", debian_version()).replace("@SIZE@", str(size))
    _put(stage, "DEBIAN/control", control)
    _put(stage, "DEBIAN/conffiles", "".join(f"/{name}\n" for name in CONFFILES))
    for script in CONTROL_SCRIPTS:
        _put(stage, f"DEBIAN/{script}", (TEMPLATES / script).read_bytes())


def _set_modes(stage: Path) -> None:
    """What is executed is executable, everything is readable for all, whatever the umask."""
    executed = {f"{HOME}/bin/etcd-gateway", GENERATOR}
    executed |= {f"DEBIAN/{script}" for script in CONTROL_SCRIPTS}
    for path in (stage, *stage.rglob("*")):
        if not path.is_symlink():
            name = path.relative_to(stage).as_posix()
            path.chmod(0o755 if path.is_dir() or name in executed else 0o644)


if __name__ == "__main__":
    print(build(trees.parse_folder(__doc__)))
