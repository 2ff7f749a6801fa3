"""Write the software bill of materials: ``python -m deploy.distribution.sbom dist``.

The libraries of ``deploy/requirements.txt`` are installed into an environment of their own, hashes
checked, and CycloneDX's tool describes what is there: versions, licences, what needs what. The file
is validated against the CycloneDX schema.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import venv
from pathlib import Path

from deploy.distribution.trees import REQUIREMENTS, ROOT, build_wheel, parse_folder, run
from supervisor import __version__


def write_sbom(folder: Path) -> Path:
    """The CycloneDX file, as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"etcd-gateway-{__version__}.cdx.json"
    with tempfile.TemporaryDirectory(prefix="etcd-gateway-sbom-") as name:
        environment = Path(name) / "environment"
        venv.create(environment, with_pip=False)
        python = str(environment / "bin" / "python")
        install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
        run([*install, "--require-hashes", "--requirement", str(REQUIREMENTS)], os.environ)
        run([*install, "--no-deps", str(build_wheel(Path(name)))], os.environ)
        tool = str(Path(sys.executable).with_name("cyclonedx-py"))
        form = ["--output-reproducible", "--output-format", "JSON", "--mc-type", "application"]
        described = ["--pyproject", str(ROOT / "pyproject.toml"), "--output-file", str(target)]
        run([tool, "environment", *form, "--validate", *described, python], os.environ)
    document = json.loads(target.read_text())
    document["metadata"]["component"]["version"] = __version__  # not in pyproject.toml itself
    target.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")
    return target


if __name__ == "__main__":
    print(f"written: {write_sbom(parse_folder(__doc__))}")
