"""This very installation: how the demo starts its gateway, and what its user may type."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import sysconfig
import zipfile
from pathlib import Path


def gateway_command() -> list[str]:
    """How to start the gateway of this very installation."""
    code = "from supervisor.cli.main import main; main()"
    return _find_command() or [sys.executable, "-P", "-c", code]


def _find_command() -> list[str] | None:
    """What was called, or the script that was installed beside this interpreter."""
    called = Path(sys.argv[0]).absolute()
    if zipfile.is_zipfile(called):  # the one file: by the Python that runs it, whatever its mode
        return [sys.executable, str(called)]
    if called.name.startswith("etcd-gateway") and os.access(called, os.X_OK):
        return [str(called)]
    installed = Path(sysconfig.get_path("scripts")) / "etcd-gateway"
    return [str(installed)] if installed.exists() else None


def typed_command() -> str:
    """What to type for this very installation, in whatever directory: its name if that finds it."""
    command, found = _find_command(), shutil.which("etcd-gateway")
    if command is None or (found is not None and os.path.samefile(found, command[-1])):
        return "etcd-gateway"
    return shlex.join(command)


def fetch_command(url: str) -> str:
    """What to type to fetch a page: curl, or Python where there is no curl."""
    if shutil.which("curl"):
        return f"curl -s {url}"
    code = f'from urllib.request import urlopen; print(urlopen("{url}").read().decode(), end="")'
    return shlex.join([sys.executable, "-c", code])
