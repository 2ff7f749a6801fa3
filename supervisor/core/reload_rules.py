"""What a reload may change, and which part of the configuration goes to the workers."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

from gateway.core.messages import Settings
from supervisor.core.config import Config

FIXED = (
    "listen_addr",
    "workers",
    "pin_workers",
    "handover",
    "admin_addr",
    "log_format",
    "config_file",
)
"""Fields that only a restart or an upgrade changes: sockets and processes depend on them."""

FIXED_FROM_THE_BEGINNING = ("admin_addr", "log_format", "config_file")
"""Those of them that cannot change either while a start looks for its listen addresses."""


def keep_fixed(
    running: Config, read: Config, fixed: Sequence[str] = FIXED
) -> tuple[Config, tuple[str, ...]]:
    """The configuration to use from now on, and the flags whose new value needs a restart."""
    differing = [name for name in fixed if getattr(running, name) != getattr(read, name)]
    kept = {name: getattr(running, name) for name in differing}
    in_vain = tuple(
        flag_name(name)
        for name in differing
        if _without_order(getattr(running, name)) != _without_order(getattr(read, name))
    )
    was = {each.flag: each for each in running.effective}
    effective = tuple(
        was.get(each.flag, each) if f"--{each.flag}" in in_vain else each for each in read.effective
    )
    return dataclasses.replace(read, **kept, effective=effective), in_vain


def _without_order(value: object) -> object:
    """Addresses in another order are the same ones: nothing would change with a restart."""
    return frozenset(value) if isinstance(value, tuple) else value


def flag_name(field: str) -> str:
    """``removal_grace_s`` is ``--removal-grace``."""
    return "--" + field.removesuffix("_s").replace("_", "-")


def worker_settings(config: Config, machine: str = "") -> Settings:
    """The part that goes to the workers with every snapshot; ``machine`` identifies this host."""
    names = {field.name for field in dataclasses.fields(Settings)} - {"host_seed"}
    values = {name: getattr(config, name) for name in names}
    return Settings(**values, host_seed=seed_of(config.host_seed or machine))


def seed_of(text: str) -> int:
    """A number for a host's name; the same text always gives the same one, empty text gives 0."""
    digest = hashlib.sha256(b"etcd-gateway host seed " + text.encode("utf-8", "surrogateescape"))
    return int.from_bytes(digest.digest()[:6], "big") if text else 0
