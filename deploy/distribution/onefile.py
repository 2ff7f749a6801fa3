"""The one file: ``python -m deploy.distribution.onefile FOLDER`` writes it and prints its path.

A zip file with a line in front that has Python run it (PEP 441). Equal input gives an equal file:
names are sorted, times are the commit's, nothing depends on the machine.
"""

from __future__ import annotations

import io
import tempfile
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path

from deploy.distribution import trees
from deploy.distribution.trees import ROOT, Tree
from supervisor import __version__

MACHINE = "x86_64"
"""What the native libraries are for; pip chooses those of the machine that it runs on."""
SHEBANG = b"#!/usr/bin/env python3\n"


def name_file() -> str:
    return f"etcd-gateway-{__version__}-linux-{MACHINE}.pyz"


def compose(shared: Mapping[str, Tree], epoch: int) -> bytes:
    """The bytes of the file.

    Each part is an archive of its own inside: Python reads the list of the outer one at every
    start, and a list of two thousand names would cost 30 ms.
    """
    parts = {f"{part}.zip": _archive(tree, epoch) for part, tree in sorted(shared.items())}
    whole = {"__main__.py": _bootstrap(shared), **parts}
    return SHEBANG + _archive(whole, epoch, zipfile.ZIP_STORED)


def _archive(tree: Tree, epoch: int, how: int = zipfile.ZIP_DEFLATED) -> bytes:
    archive = io.BytesIO()
    moment = time.gmtime(max(epoch, 315532800))[:6]  # a zip file knows nothing before 1980
    with zipfile.ZipFile(archive, "w", how, compresslevel=9) as file:
        for name, content in sorted(tree.items()):
            entry = zipfile.ZipInfo(name, moment)
            entry.compress_type = how
            entry.external_attr = 0o100644 << 16
            entry.create_system = 3  # Unix, wherever it is made
            file.writestr(entry, content)
    return archive.getvalue()


def _bootstrap(shared: Mapping[str, Tree]) -> bytes:
    text = (ROOT / "deploy" / "distribution" / "bootstrap.py").read_text()
    versions = " ".join(f"{part[2]}.{part[3:]}" for part in shared if part != "common")
    for name, value in (
        ("@CONTENT_ID@", trees.digest(shared)),
        ("@VERSIONS@", versions),
        ("@MACHINE@", MACHINE),
    ):
        text = text.replace(name, value)
    return text.encode()


def build(folder: Path, versions: tuple[str, ...] = trees.VERSIONS) -> Path:
    """Make the file in ``folder``, which must be there; its path."""
    with tempfile.TemporaryDirectory(prefix="etcd-gateway-wheel-") as name:
        wheel = trees.build_wheel(Path(name))
        shared = trees.share({version: trees.collect(wheel, version) for version in versions})
    path = folder / name_file()
    path.write_bytes(compose(shared, trees.read_epoch()))
    path.chmod(0o755)
    return path


if __name__ == "__main__":
    print(build(trees.parse_folder(__doc__)))
