"""An endpoint that fails its TLS check, by each way that leads to a check: all of them agree."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.cli.admin_client import fetch_status
from tests.dns import NameServer
from tests.gateway import READY, Gateway, run_command, running
from tests.support import free_port, wait_until
from tests.tls import Authority, Server

SSL = "_etcd-client-ssl._tcp.example.test"
REFUSED = "upgrade failed, the old image goes on"


class Site:
    """One endpoint found by SRV, a gateway's config file, and two authorities."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder)
        self.other = Authority(folder, "other")
        self.config = folder / "gateway.toml"
        self.trust(self.authority)
        self.port = free_port()
        self.admin = f"127.0.0.1:{free_port()}"
        self.endpoint = f"infra.example.test:{self.port}"

    def trust(self, authority: Authority) -> None:
        self.config.write_text(f'trusted-ca-file = "{authority.file}"\n')

    def serve(self, name: str = "example.test") -> Server:
        return Server(self.authority.context(name), self.port)

    def flags(self, ns: NameServer) -> list[str]:
        ns.set("infra.example.test", "A", "127.0.0.1")
        ns.set(SSL, "SRV", f"0 0 {self.port} infra.example.test.")
        return [
            *(f"--config-file={self.config}", "--discovery-srv=example.test"),
            *(f"--nameserver={ns.address}", f"--admin-addr={self.admin}", "--removal-grace=1s"),
        ]

    def used(self) -> set[str]:
        endpoints = fetch_status([self.admin])["endpoints"]
        return {each["endpoint"] for each in endpoints if each["state"] != "removed"}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@contextlib.contextmanager
def served(site: Site) -> Iterator[Gateway]:
    """The endpoint has passed and is in use; then its server is gone."""
    with NameServer() as ns:
        server = site.serve()
        try:
            with running(*site.flags(ns)) as gateway:
                wait_until(lambda: site.used() == {site.endpoint})
                server.stop()
                yield gateway
        finally:
            server.stop()


def test_a_start_ends(site: Site) -> None:
    """With code 69; nothing is listened on."""
    with NameServer() as ns, site.serve("wrong.test"):
        done = run_command("start", f"--listen-addr=127.0.0.1:{free_port()}", *site.flags(ns))
    assert done.returncode == 69
    assert "Hostname mismatch" in done.stderr


@pytest.mark.parametrize("way", [signal.SIGHUP, signal.SIGUSR2])
def test_the_only_endpoint_goes_out_of_use(site: Site, way: signal.Signals) -> None:
    """By a reload and by an upgrade, and by the next one too; it comes back when it passes."""
    with served(site) as gateway:
        with site.serve("wrong.test"):
            for count in (1, 2):
                gateway.signal(way)
                if way is signal.SIGHUP:
                    error = gateway.wait_line("reload failed", count=count)["error"]
                    assert "Hostname mismatch" in error
                else:
                    gateway.wait_line(READY, count=count + 1)
                    gateway.wait_line("endpoint left out", count=count)
                wait_until(lambda: site.used() == set(), 20)
            refused = fetch_status([site.admin])["discovery"]["refused"]
            assert "Hostname mismatch" in refused[site.endpoint]
        with site.serve():
            wait_until(lambda: site.used() == {site.endpoint}, 60)


@pytest.mark.parametrize("way", [signal.SIGHUP, signal.SIGUSR2])
def test_another_check_that_nobody_passes_is_not_taken(site: Site, way: signal.Signals) -> None:
    """A wrong CA file leaves the endpoint in use, as a wrong configuration does; so does none."""
    with served(site) as gateway, site.serve():
        for count, authority in enumerate((site.other, None), 1):
            if authority is not None:
                site.trust(authority)
            else:
                site.config.write_text('trusted-ca-file = "/nonexistent/ca.pem"\n')
            gateway.signal(way)
            msg = "reload failed" if way is signal.SIGHUP else REFUSED
            error = gateway.wait_line(msg, 30, count=count)["error"]
            assert ("certificate" if authority else "/nonexistent/ca.pem") in error
            assert site.used() == {site.endpoint}
        site.trust(site.authority)
        gateway.signal(way)
        gateway.wait_line("reload complete" if way is signal.SIGHUP else "upgrading")
        wait_until(lambda: site.used() == {site.endpoint}, 20)
