"""The sample configuration files: every flag once, and usable as they are."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace

import pytest

from supervisor.core.config import Config, build
from supervisor.core.flags import FLAGS
from tests.generate import ROOT

ENVIRONMENT = (ROOT / "deploy" / "etcd-gateway.default").read_text()
FILE = (ROOT / "deploy" / "etcd-gateway.toml").read_text()


def settings_of(environment: str) -> dict[str, str]:
    """The variables as systemd reads them from an EnvironmentFile."""
    lines = [line for line in environment.splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def activate(text: str, key: str) -> str:
    """The file with the comment sign in front of its settings taken away."""
    return re.sub(rf"^#(?={key})", "", text, flags=re.MULTILINE)


def test_every_flag_is_in_both_files_once() -> None:
    """Both files name each flag exactly once; the config file cannot name itself."""
    names = [flag.name for flag in FLAGS if flag.name != "config-file"]
    assert sorted(re.findall(r"^#([a-z-]+) = ", FILE, re.MULTILINE)) == sorted(names)
    variables = sorted(flag.variable for flag in FLAGS)
    assert sorted(re.findall(r"^#?(GATEWAY_\w+)=", ENVIRONMENT, re.MULTILINE)) == variables


def test_as_shipped_they_change_nothing() -> None:
    """A gateway that reads the shipped files has the defaults, and knows its config file."""
    assert tomllib.loads(FILE) == {}
    config = build({}, settings_of(ENVIRONMENT), tomllib.loads(FILE))
    assert config == Config(config_file="/etc/etcd-gateway.toml")


@pytest.mark.parametrize("source", ["variables", "file"])
def test_what_they_show_is_the_default(source: str) -> None:
    """Each value that is commented out is a valid one, and is the default where there is one."""
    examples = build({flag.name: [flag.example] for flag in FLAGS if flag.example}, {}, {})
    shown = replace(examples, endpoints_given=True)
    if source == "file":
        assert build({}, {}, tomllib.loads(activate(FILE, "[a-z-]+ = "))) == shown
    else:
        config = build({}, settings_of(activate(ENVIRONMENT, "GATEWAY_")), {})
        assert config == replace(shown, config_file="/etc/etcd-gateway.toml")
