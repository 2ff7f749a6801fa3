"""The sample files in ``deploy``, made from the table of flags."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from pathlib import Path

from supervisor.core.flags import FLAGS, Flag, FlagKind, Topic
from supervisor.core.reload_rules import FIXED, flag_name

ROOT = Path(__file__).resolve().parent.parent

ENVIRONMENT_OPENING = """\
# /etc/default/etcd-gateway: flags of etcd-gateway as variables, read by its systemd unit.
# A variable set here beats the config file. A change takes effect at `systemctl restart
# etcd-gateway`, which costs no client and no session; what is in the config file takes effect at
# `systemctl reload etcd-gateway`.

GATEWAY_CONFIG_FILE=/etc/etcd-gateway.toml
"""

FILE_OPENING = """\
# /etc/etcd-gateway.toml: the config file of etcd-gateway. Each key is a flag of `etcd-gateway
# start`; the values shown are the defaults, or examples where there is none. Take the # away and
# change what you need, ask `etcd-gateway check --config-file=/etc/etcd-gateway.toml` whether it is
# right, and apply it with `systemctl reload etcd-gateway`. A variable in /etc/default/etcd-gateway
# beats the key here.
{fixed}
"""

UNIT_OPENING = """\
# Several gateways on one host: `systemctl enable --now etcd-gateway@NAME` runs one with the config
# file /etc/etcd-gateway/NAME.toml, which needs a listen-addr of its own. Made from
# etcd-gateway.service by `make docs`.
"""

OF_ONE_INSTANCE = {
    "Description=etcd gateway (": "Description=etcd gateway %i (",
    "EnvironmentFile=-/etc/default/etcd-gateway": "EnvironmentFile=-/etc/default/etcd-gateway-%i",
    "Environment=GATEWAY_DEFAULT_ADMIN_ADDR=unix:/run/etcd-gateway/admin.sock": (
        "Environment=GATEWAY_DEFAULT_ADMIN_ADDR=unix:/run/etcd-gateway@%i/admin.sock\n"
        "Environment=GATEWAY_DEFAULT_CONFIG_FILE=/etc/etcd-gateway/%i.toml"
    ),
    "RuntimeDirectory=etcd-gateway": "RuntimeDirectory=etcd-gateway@%i",
    "CacheDirectory=etcd-gateway": "CacheDirectory=etcd-gateway@%i",
}
"""What differs between the unit and the one for several instances. No folder may be inside of one
of the unit's: systemd makes those links into /run/private and /var/cache/private, and cannot where
a folder has to be."""

WIDTH = 98


def name_fixed(mark: str = "") -> str:
    """The keys that only a restart changes, in a sentence; each between two ``mark``."""
    flags = [flag_name(field).removeprefix("--") for field in FIXED if field != "config_file"]
    *others, last = (f"{mark}{flag}{mark}" for flag in flags)
    return f"{', '.join(others)} and {last}"


def render_environment_file() -> str:
    """``/etc/default/etcd-gateway``: the config file named, every other flag commented out."""
    return _render(ENVIRONMENT_OPENING, lambda flag: f"#{flag.variable}={_shown(flag)}")


def render_config_file() -> str:
    """``/etc/etcd-gateway.toml``: every key commented out, with its default."""
    fixed = f"A reload does not change {name_fixed()}: use `systemctl restart etcd-gateway`."
    comment = textwrap.fill(fixed, WIDTH, initial_indent="# ", subsequent_indent="# ")
    opening = FILE_OPENING.format(fixed=comment)
    return _render(opening, lambda flag: f"#{flag.name} = {_toml_value(flag)}")


def render_template_unit() -> str:
    """``etcd-gateway@.service``: the unit with its files and folders named after the instance."""
    text = (ROOT / "deploy/systemd/etcd-gateway.service").read_text()
    for plain, own in OF_ONE_INSTANCE.items():
        lines = [line for line in text.splitlines() if line.startswith(plain)]
        if len(lines) != 1:
            raise ValueError(f"the unit has {len(lines)} lines that begin with {plain!r}")
        text = text.replace(f"\n{plain}", f"\n{own}")
    return UNIT_OPENING + text[text.index("\n[Unit]") :]


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


def _shown(flag: Flag) -> str:
    return flag.default or flag.example


def _toml_value(flag: Flag) -> str:
    default = _shown(flag)
    if flag.kind is FlagKind.SWITCH or default.isdecimal():
        return default
    if flag.kind is FlagKind.MANY:
        return json.dumps(default.split(",") if default else [])
    return json.dumps(default)
