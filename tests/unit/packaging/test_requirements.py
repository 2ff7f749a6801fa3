"""What is installed is pinned, and is what pyproject.toml says."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import distributions

import pytest
from packaging.specifiers import SpecifierSet

from tests.generate import ROOT

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONSTRAINTS = (ROOT / "tests" / "constraints.txt").read_text().splitlines()
DEPLOYED = (ROOT / "deploy" / "requirements.txt").read_text()
GROUPS = {
    "tests/requirements.txt": ("test", "check"),
    "deploy/distribution/requirements.txt": ("dist",),
}
"""The files from which `make` installs tools, and the dependency groups that they repeat."""


def name_of(requirement: str) -> str:
    """A requirement's distribution, in the one spelling of PEP 503."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement)[0]).lower()


def read(path: str) -> list[str]:
    """The requirements in the file, without options and comments."""
    lines = (ROOT / path).read_text().splitlines()
    return [line for line in lines if line[:1] not in "#-"]


@pytest.mark.parametrize("path", GROUPS)
def test_requirements_are_the_dependency_groups(path: str) -> None:
    """The file names what its groups name, nothing more and nothing less."""
    groups = PYPROJECT["dependency-groups"]
    assert read(path) == [each for group in GROUPS[path] for each in groups[group]]


@pytest.mark.parametrize("path", GROUPS)
def test_every_tool_is_pinned(path: str) -> None:
    """Each tool has one exact version."""
    pinned = {name_of(line) for line in CONSTRAINTS if re.fullmatch(r"[\w.-]+==[\w.]+", line)}
    assert {name_of(line) for line in read(path)} <= pinned


def test_every_tool_runs_on_every_python_that_is_supported() -> None:
    """Debian 12 has 3.11.2: a tool for 3.11.5 cannot be installed there, and nothing be built."""
    oldest = PYPROJECT["project"]["requires-python"].removeprefix(">=") + ".0"
    pinned = {name_of(line) for line in CONSTRAINTS}
    refused = [
        f"{each.name} {each.version} needs Python {python}"
        for each in distributions()
        if name_of(each.name) in pinned
        for python in each.metadata.get_all("Requires-Python", [])
        if oldest not in SpecifierSet(python)
    ]
    assert refused == []


def test_no_index_is_named() -> None:
    """Where packages come from is the installer's business."""
    files = [ROOT / path for path in (*GROUPS, "tests/constraints.txt", "deploy/requirements.txt")]
    for line in "".join(path.read_text() for path in files).splitlines():
        assert "://" not in line
        assert not re.match(r"--(extra-)?index-url|-i\b|--find-links|--trusted-host", line)


def test_our_own_dependencies_are_lower_bounds() -> None:
    """What the gateway needs is bounded below only, and not pinned for tests either."""
    dependencies = PYPROJECT["project"]["dependencies"]
    assert all(re.fullmatch(r"[\w-]+>=[\w.]+", each) for each in dependencies)
    pinned = {name_of(line) for line in CONSTRAINTS}
    assert not pinned & {name_of(each) for each in dependencies}


def test_deployments_pin_what_the_gateway_needs() -> None:
    """Every dependency is in the pinned list, within its bound, and every line has hashes."""
    pins = dict(re.findall(r"^([\w.-]+)==([\w.]+) \\$", DEPLOYED, re.MULTILINE))
    versions = {name_of(name): version for name, version in pins.items()}
    for dependency in PYPROJECT["project"]["dependencies"]:
        name, bound = dependency.split(">=")
        assert numbers(versions[name_of(name)]) >= numbers(bound), dependency
    entries = re.split(r"^(?=\w)", DEPLOYED, flags=re.MULTILINE)[1:]
    assert len(entries) == len(pins)
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", entry) for entry in entries)


def numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part.isdecimal()]
