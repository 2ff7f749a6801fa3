"""The HEALTHCHECK of the image: it finds the gateway where whoever runs the image has put it."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.admin_double import AdminDouble
from tests.gateway import COMMAND

CONTAINERFILE = (Path(__file__).parents[3] / "deploy/container/Containerfile").read_text()


@pytest.mark.parametrize("source", ["variable", "file"])
def test_it_asks_the_admin_address_in_use(source: str, tmp_path: Path) -> None:
    """A variable and a config file change the address that the image sets; exit code 0 is ready."""
    asked = re.search(r"HEALTHCHECK.*\n +CMD (\[.*\])", CONTAINERFILE)
    assert asked is not None
    program, *arguments = json.loads(asked[1])
    assert program == "etcd-gateway"
    environ = dict(re.findall(r"(GATEWAY_DEFAULT_\w+)=(\S+)", CONTAINERFILE))
    assert "GATEWAY_DEFAULT_ADMIN_ADDR" in environ
    with AdminDouble() as double:
        if source == "variable":
            environ["GATEWAY_ADMIN_ADDR"] = double.address
        else:
            environ["GATEWAY_CONFIG_FILE"] = str(tmp_path / "gateway.toml")
            Path(environ["GATEWAY_CONFIG_FILE"]).write_text(f'admin-addr = "{double.address}"\n')
        done = subprocess.run(
            [*COMMAND, *arguments], env={**os.environ, **environ}, capture_output=True, timeout=60
        )
    assert (done.returncode, done.stderr) == (0, b"")
