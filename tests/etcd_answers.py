"""Why a request through the gateway failed: by an answer of etcd, or because a connection failed.

etcd answers that it cannot while it elects a leader, while a member is being removed, and when the
machine is too busy for its timeouts. That says nothing of the gateway, and a client tries again.
A connection that fails is the gateway's fault, unless a member ended meanwhile: no test may hide
that by trying again.
"""

from __future__ import annotations

import re
import time
from typing import Any

from tests.etcd import Cluster
from tests.gateway import Gateway
from tests.support import wait_until

ANSWER_S = 30.0
"""etcd gives up by itself after five seconds and two election timeouts; the rest is for a machine
that is busy. Whoever has no answer by then has a connection that leads nowhere."""

INSIST_S = 60.0
"""How long a client tries again."""

PROBE_PATIENCE = "--health-timeout=20s"
"""A probe that gives up sooner because the machine is busy deactivates a member that is well, and
has the member log a connection that was broken off."""

_ANSWERS = re.compile(r"etcdserver: |desc = raft: ")
_ELECTIONS = re.compile(r"RAFT NO LEADER|etcdserver: |HTTP status 503|linearizable_read failed")


def is_answer(stderr: str) -> bool:
    """Whether what ``etcdctl`` complains of is what a member answered."""
    return _ANSWERS.search(stderr) is not None


def insist(cluster: Cluster, through: str, *words: str) -> str:
    """What ``etcdctl`` prints in the end, though etcd may answer before that it cannot.

    Fails when a connection fails and no member ended while it was open.
    """
    said = ""

    def has_succeeded() -> bool:
        nonlocal said
        began_at = time.monotonic()
        done = cluster.ctl(through, *words, timeout_s=ANSWER_S)
        said = done.stderr
        if done.returncode == 0:
            said = done.stdout
            return True
        assert is_answer(said) or cluster.has_ended(began_at), f"a connection failed: {said}"
        return False

    try:
        wait_until(has_succeeded, INSIST_S, " ".join(words))
    except AssertionError as error:
        raise AssertionError(f"{error}: {said}") from None
    return said


def unexplained(gateway: Gateway) -> list[dict[str, Any]]:
    """The log lines of endpoints that were deactivated for other reasons than an election."""
    lines = gateway.lines("deactivated endpoint")
    return [line for line in lines if not _ELECTIONS.search(line["error"])]


def insist_put(cluster: Cluster, through: str, key: str, value: str) -> None:
    """Put a value, as a client does that tries again."""
    insist(cluster, through, "put", key, value)


def insist_get(cluster: Cluster, through: str, key: str) -> str:
    """The value of a key, by a linearizable read."""
    return insist(cluster, through, "get", "--print-value-only", key).strip()
