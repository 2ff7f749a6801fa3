"""Nameservers as they install: each with a configuration of the test's own, on loopback.

All of them serve, or forward to a server with, the zone ``example.test``.
"""

from __future__ import annotations

import abc
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Self

import dns.exception
import dns.message
import dns.query
import dns.rcode

from tests.support import free_port, wait_until

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
HEAD = """$ORIGIN example.test.
$TTL {ttl}
@ IN SOA ns hostmaster {serial} 1 1 86400 {ttl}
@ IN NS ns
ns IN A 127.0.0.1
"""


class Nameserver(abc.ABC):
    """One server process; ``with`` starts and ends it. ``upstream``: whom a forwarder asks."""

    program = ""

    def __init__(self, directory: Path, upstream: Nameserver | None = None) -> None:
        self.directory = directory
        self.upstream = upstream
        self.port = free_port()
        self._serial = 0
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)

    @classmethod
    def is_installed(cls) -> bool:
        return shutil.which(cls.program, path=PATH) is not None

    def write(self, *records: str, ttl: int = 1) -> None:
        """Write the zone, and have it loaded if the server runs."""
        self._serial += 1
        text = HEAD.format(serial=self._serial, ttl=ttl) + "\n".join(records) + "\n"
        draft = self.directory / "draft"
        draft.write_text(text)
        draft.rename(self.directory / "zone")
        if self._process is not None:
            self._load()

    def _load(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    @abc.abstractmethod
    def _arguments(self) -> list[str]:
        """Write the configuration, and say how to start in the foreground."""

    def __enter__(self) -> Self:
        program = shutil.which(self.program, path=PATH)
        assert program is not None
        with (self.directory / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [program, *self._arguments()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
            )
        try:
            wait_until(self._answers, 20, f"{self.program} answers")
        except BaseException:
            self.__exit__()
            raise
        return self

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.directory / "log").read_text()
        query = dns.message.make_query("ns.example.test.", "A")
        try:
            reply = dns.query.udp(query, "127.0.0.1", timeout=1, port=self.port)
        except (OSError, dns.exception.DNSException):
            return False
        return reply.rcode() == dns.rcode.NOERROR and bool(reply.answer)

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(60)
            self._process = None


class Bind(Nameserver):
    program = "named"
    signing = ""

    def _arguments(self) -> list[str]:
        zone = f'type primary; file "zone"; allow-transfer {{ any; }}; {self.signing}'
        (self.directory / "named.conf").write_text(
            f'options {{ directory "{self.directory}"; listen-on port {self.port}'
            " { 127.0.0.1; }; listen-on-v6 { none; }; recursion no; pid-file none;"
            " session-keyfile none; dnssec-validation no; notify no; max-records-per-type 0; };\n"
            f'controls {{ }};\nzone "example.test" {{ {zone} }};\n'
        )
        return ["-g", "-n", "1", "-c", str(self.directory / "named.conf")]


class SignedBind(Bind):
    """Its signing takes no two changes within a second ("not exact" in its log)."""

    signing = "dnssec-policy default; inline-signing yes;"


class Knot(Nameserver):
    """The zone is signed."""

    program = "knotd"
    zone = """\
    file: zone
    zonefile-sync: -1
    zonefile-load: difference-no-serial
    journal-content: all
    dnssec-signing: on
"""

    def _arguments(self) -> list[str]:
        (self.directory / "knot.conf").write_text(
            f"server:\n    listen: 127.0.0.1@{self.port}\n    rundir: {self.directory}\n"
            f"database:\n    storage: {self.directory}\n"
            "log:\n  - target: stderr\n    any: info\n"
            f"{self._remotes()}"
            f"zone:\n  - domain: example.test\n    storage: {self.directory}\n{self.zone}"
        )
        return ["-c", str(self.directory / "knot.conf")]

    def _remotes(self) -> str:
        return ""


class KnotSecondary(Knot):
    """Gets the zone from its upstream by AXFR, and again every two seconds."""

    zone = "    file: copy\n    master: primary\n    refresh-max-interval: 2\n"

    def _remotes(self) -> str:
        assert self.upstream is not None
        return f"remote:\n  - id: primary\n    address: 127.0.0.1@{self.upstream.port}\n"


class PowerDns(Nameserver):
    """With its backend for zone files, which is a package of its own."""

    program = "pdns_server"

    @classmethod
    def is_installed(cls) -> bool:
        backends = Path("/usr/lib").glob("*/pdns/libbindbackend.so")
        return super().is_installed() and any(backends)

    def _arguments(self) -> list[str]:
        (self.directory / "bind.conf").write_text(
            f'zone "example.test" {{ type master; file "{self.directory}/zone"; }};\n'
        )
        (self.directory / "pdns.conf").write_text(
            f"launch=bind\nbind-config={self.directory}/bind.conf\nbind-check-interval=1\n"
            f"local-address=127.0.0.1\nlocal-port={self.port}\nsocket-dir={self.directory}\n"
            "daemon=no\nguardian=no\ndisable-syslog=yes\ncache-ttl=0\nquery-cache-ttl=0\n"
            "negquery-cache-ttl=0\nzone-cache-refresh-interval=0\n"
        )
        return [f"--config-dir={self.directory}"]

    def _load(self) -> None:
        """It looks at the file by itself, but not twice within a second."""
        control = shutil.which("pdns_control", path=PATH)
        assert control is not None
        command = [control, f"--socket-dir={self.directory}", "--config-dir=/nonexistent"]
        subprocess.run(
            [*command, "bind-reload-now", "example.test"], check=True, capture_output=True
        )


class Unbound(Nameserver):
    """A caching forwarder."""

    program = "unbound"

    def _arguments(self) -> list[str]:
        assert self.upstream is not None
        (self.directory / "unbound.conf").write_text(
            f"server:\n  interface: 127.0.0.1\n  port: {self.port}\n  directory: {self.directory}\n"
            '  username: ""\n  chroot: ""\n  pidfile: ""\n  use-syslog: no\n'
            '  do-not-query-localhost: no\n  module-config: "iterator"\n  num-threads: 1\n'
            "  local-zone: test. nodefault\n"
            "remote-control:\n  control-enable: no\n"
            f"forward-zone:\n  name: .\n  forward-addr: 127.0.0.1@{self.upstream.port}\n"
        )
        return ["-d", "-c", str(self.directory / "unbound.conf")]

    def _load(self) -> None:
        """The upstream has the zone."""


class Dnsmasq(Unbound):
    """A caching forwarder."""

    program = "dnsmasq"

    def _arguments(self) -> list[str]:
        assert self.upstream is not None
        (self.directory / "dnsmasq.conf").write_text("")
        return [
            "--keep-in-foreground",
            f"--conf-file={self.directory}/dnsmasq.conf",
            f"--port={self.port}",
            "--listen-address=127.0.0.1",
            "--bind-interfaces",
            "--no-resolv",
            "--no-hosts",
            "--user=",
            f"--pid-file={self.directory}/pid",
            f"--server=127.0.0.1#{self.upstream.port}",
        ]
