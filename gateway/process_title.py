"""The titles that ``ps`` shows for the processes."""

from __future__ import annotations

import setproctitle


def set_title(role: str, listen: str, state: str = "") -> None:
    """``etcd-gateway: ROLE [LISTEN] STATE``, as ``etcd-gateway: worker 3 [127.0.0.1:23790]``."""
    setproctitle.setproctitle(f"etcd-gateway: {role} [{listen}] {state}".rstrip())
