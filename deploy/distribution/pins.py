"""Write ``deploy/requirements.txt`` anew: ``python -m deploy.distribution.pins``.

The newest versions of the libraries that ``pyproject.toml`` asks for, with the hashes of all their
files, and without the address of any index.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from deploy.distribution.trees import REQUIREMENTS, ROOT

OPENING = """\
# The libraries of the gateway in the versions that it was tested with, for deployments:
#   pip install --require-hashes -r deploy/requirements.txt
# Written by `make pins`. The one file and the Debian package are made of these.
"""

OPTIONS = (
    *("--quiet", "--upgrade", "--generate-hashes", "--strip-extras", "--no-header"),
    *("--no-annotate", "--no-emit-index-url", "--no-emit-find-links", "--no-emit-trusted-host"),
)


def main() -> None:
    """Resolve with the oldest Python that is supported: it needs everything newer ones need."""
    with tempfile.TemporaryDirectory(prefix="etcd-gateway-pins-") as folder:
        found = Path(folder) / "requirements.txt"
        compiler = Path(sys.executable).with_name("pip-compile")
        argv = [str(compiler), *OPTIONS, "--output-file", str(found), "pyproject.toml"]
        subprocess.run(argv, cwd=ROOT, check=True)
        REQUIREMENTS.write_text(OPENING + found.read_text())


if __name__ == "__main__":
    main()
