"""A member that lost its cluster: it runs, it accepts, it answers, and it serves nobody."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests.etcd import Cluster, needs_etcd
from tests.etcd_answers import insist_get, insist_put
from tests.gateway import Gateway
from tests.support import wait_until
from tests.wires import cut_off, hosts, prefix

pytestmark = [needs_etcd, pytest.mark.timeout(300), pytest.mark.slow]

GATEWAY = "10.77.0.1"
MEMBERS = ["10.77.0.11", "10.77.0.12", "10.77.0.13"]


@contextlib.contextmanager
def separated(namespaces: list[str], index: int) -> Iterator[None]:
    """The member has no way to the others and they none to it; the gateway reaches them all."""
    ways = [
        (namespaces[home], MEMBERS[other])
        for home in range(3)
        for other in range(3)
        if home != other and index in (home, other)
    ]
    with cut_off(ways):
        yield


def test_a_member_without_a_leader_is_found_and_used_again_when_healed() -> None:
    """A partition that TCP probes would not notice: with http ones no client gets there."""
    with hosts(GATEWAY, *MEMBERS) as (near, *homes), contextlib.ExitStack() as stack:
        cluster = stack.enter_context(
            Cluster(homes=list(zip(homes, MEMBERS, strict=True)), near=near)
        )
        gateway = stack.enter_context(
            Gateway(
                "--health-check=http",
                "--health-interval=500ms",
                "--health-timeout=10s",
                "--access-log",
                endpoints=cluster.endpoints,
                listen=f"{GATEWAY}:23790",
                prefix=prefix(near),
            )
        )
        gateway.wait_ready()
        assert gateway.lines("deactivated endpoint") == []
        others = {cluster.endpoints[0], cluster.endpoints[2]}
        with separated(homes, 1):
            # If it was the leader, the others are without one too, until they elected another.
            wait_until(lambda: active(gateway) == others, 60, "found without a leader")
            lines = gateway.lines("deactivated endpoint")
            errors = {line["error"] for line in lines if line["endpoint"] not in others}
            assert errors == {"HTTP status 503"}
            alone = cluster.ctl(cluster.endpoints[1], "get", "x", timeout_s=2)
            assert alone.returncode != 0, "the member serves: it was not cut off"
            for n in range(12):
                insist_put(cluster, gateway.listen, f"key{n}", f"value{n}")
                assert insist_get(cluster, gateway.listen, f"key{n}") == f"value{n}"
            wait_until(lambda: len(gateway.lines("session")) >= 24, 30, "sessions are logged")
            assert {line["endpoint"] for line in gateway.lines("session")} <= others
        wait_until(lambda: active(gateway) == set(cluster.endpoints), 60, "used again")


def active(gateway: Gateway) -> set[str]:
    """What the log says last of each endpoint: all but those that were deactivated."""
    words = dict.fromkeys(gateway.lines("ready to proxy client requests")[0]["endpoints"], True)
    for line in gateway.lines():
        if line["msg"] in ("deactivated endpoint", "activated"):
            words[line["endpoint"]] = line["msg"] == "activated"
    return {endpoint for endpoint, is_active in words.items() if is_active}
