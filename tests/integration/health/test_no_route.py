"""A host that cannot dial: nobody is blamed, and nobody is told that all is well."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

import pytest

from supervisor.cli.admin_client import fetch_status
from tests.clients import connect
from tests.gateway import Gateway
from tests.servers import serving
from tests.support import wait_until
from tests.wires import hosts, inside, ip, loopback, prefix

ADDRESS = "192.0.2.10"


def echo_once(conn: socket.socket) -> None:
    conn.sendall(conn.recv(1))


def is_served(gateway: Gateway, namespace: str) -> bool:
    """Whether a client gets an answer."""
    with inside(namespace, lambda: connect(gateway.address)) as client:
        try:
            client.sendall(b"?")
            return client.recv(1) == b"?"
        except ConnectionResetError:
            return False


@pytest.mark.parametrize("check", ["tcp", "off"])
def test_a_missing_route_is_said_and_forgotten(check: str, tmp_path: Path) -> None:
    """Status, log and readiness tell; the endpoint stays active, and serves once there is one."""
    admin = f"unix:{tmp_path}/admin"
    flags = [f"--health-check={check}", "--health-interval=200ms", "--dial-timeout=200ms"]
    with loopback(65_536) as namespace, contextlib.ExitStack() as stack:
        gateway = stack.enter_context(
            Gateway(
                *flags,
                f"--admin-addr={admin}",
                endpoints=[f"{ADDRESS}:2379"],
                prefix=prefix(namespace),
            )
        )
        gateway.wait_ready()
        assert not is_served(gateway, namespace)

        def reason() -> str:
            return "; ".join(fetch_status([admin])["unready"])

        wait_until(lambda: "cannot dial any endpoint: network is unreachable" in reason())
        document = fetch_status([admin])
        assert document["state"] == "degraded"
        (endpoint,) = document["endpoints"]
        assert (endpoint["state"], endpoint["dial_failures"]) == ("active", 0)
        assert endpoint["last_error"] == "network is unreachable"
        assert gateway.wait_line("cannot dial")["error"] == "network is unreachable"

        ip("-n", namespace, "addr", "add", f"{ADDRESS}/32", "dev", "lo")
        listener = inside(namespace, lambda: socket.create_server((ADDRESS, 2379)))
        stack.enter_context(serving(echo_once, listener=listener))
        wait_until(lambda: is_served(gateway, namespace))
        wait_until(lambda: reason() == "")
        assert len(gateway.lines("cannot dial")) == 1


@pytest.mark.parametrize("check", ["tcp", "off"])
def test_a_router_that_says_no_is_the_endpoints_fault(check: str) -> None:
    """A probe, or a dial, deactivates. Over IPv6 "prohibited" is no "permission denied" of this
    host's, and a router without a route is no "network is unreachable" of its.
    """
    with hosts("192.0.2.1", "192.0.2.2") as (near, router):
        for n, name in enumerate((near, router), 1):
            ip("-n", name, "addr", "add", f"2001:db8:1::{n}/64", "dev", "eth0", "nodad")
        ip("-n", near, "route", "add", "2001:db8:2::/64", "via", "2001:db8:1::2")
        ip("-n", router, "route", "add", "prohibit", "2001:db8:2::/64")
        ip("-n", near, "route", "add", "198.51.100.0/24", "via", "192.0.2.2")
        for name in ("ipv6.conf.all.forwarding=1", "ipv4.ip_forward=1", "ipv4.icmp_ratelimit=0"):
            ip("netns", "exec", router, "sysctl", "-w", f"net.{name}")
        flags = [f"--health-check={check}", "--health-interval=200ms", "--dial-timeout=200ms"]
        flags.append("--health-min-active=0%")
        endpoints = ["[2001:db8:2::1]:2379", "198.51.100.1:2379"]
        with Gateway(*flags, endpoints=endpoints, prefix=prefix(near)) as gateway:
            gateway.wait_ready()
            if check == "off":
                assert not is_served(gateway, near)
            gateway.wait_line("deactivated endpoint", count=2)
            lines = gateway.lines("deactivated endpoint")
            assert {line["endpoint"] for line in lines} == {*endpoints}
            assert {line["error"] for line in lines} == {"no route to host"}
            assert gateway.lines("cannot dial") == []
