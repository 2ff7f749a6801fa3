"""The main job: a real three-member etcd cluster behind the gateway, members dying."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from tests.etcd import Cluster, needs_etcd
from tests.etcd_answers import insist_get, insist_put
from tests.gateway import Gateway, running
from tests.support import wait_until

pytestmark = [needs_etcd, pytest.mark.timeout(300), pytest.mark.slow]


class Watch:
    """``etcdctl watch`` through the gateway, its output collected."""

    def __init__(self, cluster: Cluster, gateway: Gateway, key: str) -> None:
        self._process = subprocess.Popen(
            [*cluster.ctl_command(gateway.listen), "watch", key],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "ETCDCTL_API": "3"},
        )
        self.lines: list[str] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.strip())

    def close(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._thread.join(60)
        assert self._process.stdout is not None
        self._process.stdout.close()


def watched(cluster: Cluster, gateway: Gateway, watch: Watch) -> bool:
    """Whether the watch shows a value; it is put again, as the first may come before the watch."""
    insist_put(cluster, gateway.listen, "watched", "first")
    return "first" in watch.lines


def test_members_die_in_turn_and_clients_lose_nothing() -> None:
    """Reads, writes and a watch go on while each member in turn is killed and started again: what
    etcd refused meanwhile it does when it is asked again, and no other connection fails."""
    with Cluster() as cluster, running(endpoints=cluster.endpoints, workers=2) as gateway:
        watch = Watch(cluster, gateway, "watched")
        try:
            wait_until(lambda: watched(cluster, gateway, watch), 60, "the watch is established")
            for index in range(3):
                cluster.kill(index)
                for n in range(3):
                    insist_put(cluster, gateway.listen, f"key{n}", f"value{index}{n}")
                    got = insist_get(cluster, gateway.listen, f"key{n}")
                    assert got == f"value{index}{n}"
                insist_put(cluster, gateway.listen, "watched", f"without {index}")
                wait_until(
                    lambda index=index: f"without {index}" in watch.lines,  # type: ignore[misc]
                    60,
                    f"the watch resumed without member {index}",
                )
                cluster.start(index)
                cluster.wait_healthy()
                wait_until(lambda index=index: is_active(gateway, index, cluster), 30)  # type: ignore[misc]
        finally:
            watch.close()
        assert Path(f"/proc/{gateway.pid}").exists()


def is_active(gateway: Gateway, index: int, cluster: Cluster) -> bool:
    """Whether the log's last word on the member is that it is active."""
    name = cluster.endpoints[index]
    words = [
        line["msg"]
        for line in gateway.lines()
        if line["msg"] in ("deactivated endpoint", "activated") and line.get("endpoint") == name
    ]
    return not words or words[-1] == "activated"
