"""The titles that ``ps`` shows for the processes."""

from __future__ import annotations

import setproctitle

PROGRAM = "etcd-gateway: "
"""How the title of each process of a gateway begins."""

MASTER = f"{PROGRAM}master"


def set_title(role: str, listen: str, state: str = "") -> None:
    """``etcd-gateway: ROLE [LISTEN] STATE``, as ``etcd-gateway: worker 3 [127.0.0.1:23790]``."""
    setproctitle.setproctitle(f"{PROGRAM}{role} [{listen}] {state}".rstrip())
