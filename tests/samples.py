"""The sample files in ``deploy``, made from the table of flags."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable

from supervisor.core.flags import FLAGS, Flag, FlagKind, Topic

ENVIRONMENT_OPENING = """\
# /etc/default/etcd-gateway: flags of etcd-gateway as variables, read by its systemd unit.
# A variable set here beats the config file. A change takes effect at `systemctl restart
# etcd-gateway`, which costs no client and no session; what is in the config file takes effect at
# `systemctl reload etcd-gateway`.

GATEWAY_CONFIG_FILE=/etc/etcd-gateway.toml
"""

FILE_OPENING = """\
# /etc/etcd-gateway.toml: the config file of etcd-gateway. Each key is a flag of `etcd-gateway
# start`; the values shown are the defaults. Take the # away and change what you need, ask
# `etcd-gateway check --config-file=/etc/etcd-gateway.toml` whether it is right, and apply it with
# `systemctl reload etcd-gateway`. A variable in /etc/default/etcd-gateway beats the key here.
"""

WIDTH = 98


def render_environment_file() -> str:
    """``/etc/default/etcd-gateway``: the config file named, every other flag commented out."""
    return _render(ENVIRONMENT_OPENING, lambda flag: f"#{flag.variable}={flag.default}")


def render_config_file() -> str:
    """``/etc/etcd-gateway.toml``: every key commented out, with its default."""
    return _render(FILE_OPENING, lambda flag: f"#{flag.name} = {_toml_value(flag)}")


def _render(opening: str, setting: Callable[[Flag], str]) -> str:
    parts = [opening]
    for topic in Topic:
        parts.append(f"## {topic.value}\n")
        parts += [
            f"{_comment(flag.help)}{setting(flag)}\n"
            for flag in FLAGS
            if flag.topic is topic and flag.name != "config-file"
        ]
    return "\n".join(parts)


def _comment(text: str) -> str:
    lines = textwrap.wrap(text, WIDTH, break_on_hyphens=False, break_long_words=False)
    return "".join(f"# {line}\n" for line in lines)


def _toml_value(flag: Flag) -> str:
    if flag.kind is FlagKind.SWITCH or flag.default.isdecimal():
        return flag.default
    if flag.kind is FlagKind.MANY:
        return json.dumps(flag.default.split(",") if flag.default else [])
    return json.dumps(flag.default)
