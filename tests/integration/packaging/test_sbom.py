"""The software bill of materials names what is deployed, and nothing else."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest

from deploy.distribution.sbom import write_sbom
from deploy.distribution.trees import REQUIREMENTS
from supervisor import __version__
from tests.long_tests import only_long

pytestmark = [
    only_long,
    pytest.mark.skipif(
        importlib.util.find_spec("cyclonedx_py") is None,
        reason="needs the tools of `make .venv/.dist`",
    ),
    pytest.mark.timeout(600),
]


def spelled(name: str) -> str:
    """A distribution's name, in the one spelling of PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_it_names_what_is_deployed(tmp_path: Path) -> None:
    """Every pinned library in its version, each with its licence."""
    document = json.loads(write_sbom(tmp_path).read_text())
    assert document["metadata"]["component"]["version"] == __version__
    pinned = re.findall(r"^([\w.-]+)==(\S+)", REQUIREMENTS.read_text(), re.MULTILINE)
    listed = {
        (spelled(each["name"]), each["version"])
        for each in document["components"]
        if spelled(each["name"]) != "etcd-gateway"
    }
    assert listed == {(spelled(name), version) for name, version in pinned}
    assert all(each.get("licenses") for each in document["components"])
