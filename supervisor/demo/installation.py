"""This very installation: how the demo starts its gateway, and what its user may type."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import sysconfig
from pathlib import Path


def gateway_command() -> list[str]:
    """How to start the gateway of this very installation."""
    if (script := _find_script()) is not None:
        return [str(script)]
    return [sys.executable, "-P", "-c", "from supervisor.cli.main import main; main()"]


def _find_script() -> Path | None:
    """The file that was called, or the one that was installed beside this interpreter."""
    called = Path(sys.argv[0]).absolute()
    if called.name.startswith("etcd-gateway") and os.access(called, os.X_OK):
        return called
    installed = Path(sysconfig.get_path("scripts")) / "etcd-gateway"
    return installed if installed.exists() else None


def typed_command() -> str:
    """What to type for this very installation, in whatever directory: its name if that finds it."""
    script, found = _find_script(), shutil.which("etcd-gateway")
    if script is None or (found is not None and os.path.samefile(found, script)):
        return "etcd-gateway"
    return shlex.quote(str(script))


def fetch_command(url: str) -> str:
    """What to type to fetch a page: curl, or Python where there is no curl."""
    if shutil.which("curl"):
        return f"curl -s {url}"
    code = f'from urllib.request import urlopen; print(urlopen("{url}").read().decode(), end="")'
    return shlex.join([sys.executable, "-c", code])
