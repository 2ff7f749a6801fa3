"""What is installed for tests and development is pinned, and is what pyproject.toml says."""

from __future__ import annotations

import re
import tomllib

from tests.generate import ROOT

REQUIREMENTS = (ROOT / "tests" / "requirements.txt").read_text().splitlines()
CONSTRAINTS = (ROOT / "tests" / "constraints.txt").read_text().splitlines()


def name_of(requirement: str) -> str:
    """A requirement's distribution, in the one spelling of PEP 503."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement)[0]).lower()


def test_requirements_are_the_dependency_groups() -> None:
    """``tests/requirements.txt`` names what the groups name, nothing more and nothing less."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    wanted = [each for group in ("test", "check") for each in groups[group]]
    assert [line for line in REQUIREMENTS if line[:1] not in "#-"] == wanted


def test_every_tool_is_pinned() -> None:
    """Each tool has one exact version."""
    pinned = {name_of(line) for line in CONSTRAINTS if re.fullmatch(r"[\w.-]+==[\w.]+", line)}
    assert {name_of(line) for line in REQUIREMENTS if line[:1] not in "#-"} <= pinned


def test_no_index_is_named() -> None:
    """Where packages come from is the installer's business."""
    for line in REQUIREMENTS + CONSTRAINTS:
        assert "://" not in line
        assert not re.match(r"--(extra-)?index-url|-i\b|--find-links", line)


def test_our_own_dependencies_are_lower_bounds() -> None:
    """What the gateway needs is bounded below only, and not pinned for tests either."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert all(re.fullmatch(r"[\w-]+>=[\w.]+", each) for each in project["dependencies"])
    pinned = {name_of(line) for line in CONSTRAINTS}
    assert not pinned & {name_of(each) for each in project["dependencies"]}
