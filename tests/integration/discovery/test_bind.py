"""Discovery with BIND, a nameserver that is not of our making, and its zone file."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from tests.backends import Backend, greet
from tests.clients import asked
from tests.gateway import running
from tests.support import free_port, wait_until

NAMED = shutil.which("named", path="/usr/sbin:/usr/bin")

pytestmark = pytest.mark.skipif(NAMED is None, reason="bind9 is not installed")

CONFIGURATION = """
options {{
    directory "{directory}";
    listen-on port {port} {{ 127.0.0.1; }};
    listen-on-v6 {{ none; }};
    recursion no;
    pid-file none;
    session-keyfile none;
    dnssec-validation no;
    max-udp-size 1232;
}};
controls {{ }};
zone "example.test" {{ type primary; file "zone"; }};
"""

HEAD = """
$TTL 5
@           SOA  ns hostmaster {serial} 3600 600 86400 5
            NS   ns
ns          A    127.0.0.1
host        A    127.0.0.1
            AAAA ::1
alias       CNAME host
"""


class Bind:
    """``named`` in the foreground with one zone; owns the process."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._serial = 0
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    def write(self, *records: str) -> None:
        """Write the zone, and have it loaded if the server runs."""
        self._serial += 1
        text = HEAD.format(serial=self._serial) + "\n".join(records) + "\n"
        (self._directory / "zone").write_text(text)
        if self._process is not None:
            self._process.send_signal(signal.SIGHUP)

    def __enter__(self) -> Self:
        self.port = free_port()
        configuration = CONFIGURATION.format(directory=self._directory, port=self.port)
        (self._directory / "named.conf").write_text(configuration)
        self._log = (self._directory / "log").open("wb")
        assert NAMED is not None
        self._process = subprocess.Popen(
            [NAMED, "-g", "-n", "1", "-c", str(self._directory / "named.conf")],
            stdin=subprocess.DEVNULL,
            stderr=self._log,
        )
        wait_until(self._running, 20, "named is running")
        return self

    def _running(self) -> bool:
        assert self._process is not None
        log = (self._directory / "log").read_text()
        assert self._process.poll() is None, log
        return " running\n" in log

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(60)
        self._log.close()


@pytest.fixture
def backends() -> Iterator[list[Backend]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Backend(greet, name=f"b{n}")) for n in range(2)]


def test_a_zone_of_bind_is_followed(tmp_path: Path, backends: list[Backend]) -> None:
    """SRV records through an alias and with both address families are used, and a new version of
    the zone is followed."""
    one, two = backends
    bind = Bind(tmp_path)
    bind.write(f"_etcd-client._tcp SRV 0 0 {one.port} alias", f"_x._tcp SRV 0 0 {one.port} host")
    with (
        bind,
        running(
            "--discovery-srv=example.test",
            "--insecure-discovery",
            f"--nameserver=127.0.0.1:{bind.port}",
        ) as gateway,
    ):
        assert asked(gateway.address) == "b0"
        bind.write(f"_etcd-client._tcp SRV 0 0 {two.port} host")
        wait_until(lambda: asked(gateway.address) == "b1", 15)
        assert gateway.lines("endpoints changed")


def test_a_long_answer_of_bind_comes_over_tcp(tmp_path: Path, backends: list[Backend]) -> None:
    """Ninety SRV records, too many for a datagram, are all found."""
    records = [f"_many._tcp SRV 1 {n} {n} host" for n in range(1, 90)]
    bind = Bind(tmp_path)
    bind.write(f"_many._tcp SRV 0 0 {backends[0].port} host", *records)
    with (
        bind,
        running(
            "--discovery-srv=_many._tcp.example.test",
            "--insecure-discovery",
            "--health-check=off",
            f"--nameserver=127.0.0.1:{bind.port}",
        ) as gateway,
    ):
        (line,) = gateway.lines("discovered cluster from SRV")
        assert len(line["endpoints"]) == 90
        assert asked(gateway.address) == "b0"
