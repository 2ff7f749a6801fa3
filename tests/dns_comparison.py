"""What the C library, ``etcd gateway`` and this gateway do when DNS is odd: a table.

``python -m tests.dns_comparison`` as root, with ``etcd`` and ``unshare`` installed; it takes a few
minutes. Everything happens in network and mount namespaces of its own, because the first two can
only be pointed at a nameserver by /etc/resolv.conf and at port 53.

*start*: the situation was there before the program; *later*: it came while the program ran. A cell
says whether a new session reached the right backend within some seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.backends import Backend, greet
from tests.dns import Fault, NameServer
from tests.support import free_port

MARK = "GATEWAY_TESTS_INSIDE"
PATIENCE_S = 10.0
SETTLE_S = 5.0
"""How long a situation has lasted when the later session is tried."""

NAME = "web.good.test"
ONE = "nameserver 127.0.0.1\noptions timeout:1 attempts:2\n"
TWO = "nameserver 127.0.0.1\nnameserver 127.0.0.2\noptions timeout:1 attempts:2\n"
SEARCH = "search a.test broken.test\nnameserver 127.0.0.1\noptions ndots:5 timeout:1 attempts:2\n"


class Servers:
    """The nameservers of a situation."""

    def __init__(self, first: NameServer, second: NameServer) -> None:
        self.first, self.second = first, second

    def reset(self) -> None:
        for each in (self.first, self.second):
            each.clear()
            each.faults.clear()
            each.edns_fault, each.trailing = None, b""
            each.set(NAME, "A", "127.0.0.1", ttl=1)


@dataclass(frozen=True, slots=True)
class Situation:
    """``make`` brings it about; ``name`` is the endpoint's host."""

    text: str
    make: Callable[[Servers], None]
    resolv_conf: str = ONE
    name: str = NAME


def _fault(fault: Fault) -> Callable[[Servers], None]:
    return lambda servers: servers.first.faults.update({"": fault})


def _edns(fault: Fault) -> Callable[[Servers], None]:
    return lambda servers: setattr(servers.first, "edns_fault", fault)


def _search(fault: Fault) -> Callable[[Servers], None]:
    return lambda servers: servers.first.faults.update({f"{NAME}.broken.test": fault})


SITUATIONS = (
    Situation("all is well", lambda _: None),
    Situation("FORMERR to a query with EDNS", _edns(Fault.FORMERR)),
    Situation("silence to a query with EDNS", _edns(Fault.TIMEOUT)),
    Situation("bytes behind the reply", lambda s: setattr(s.first, "trailing", b"\0\0\0\0")),
    Situation("first of two nameservers: referral", _fault(Fault.REFERRAL), TWO),
    Situation("first of two nameservers: empty, not AA, not RA", _fault(Fault.NOTHING), TWO),
    Situation("first of two nameservers: silent", _fault(Fault.TIMEOUT), TWO),
    Situation("first of two nameservers: truncated, TCP closed", _fault(Fault.HANG_UP), TWO),
    Situation("a search domain says SERVFAIL (ndots:5)", _search(Fault.SERVFAIL), SEARCH),
    Situation("a search domain is silent (ndots:5)", _search(Fault.TIMEOUT), SEARCH),
    Situation(
        "absolute name, wildcard in the search list",
        lambda s: s.first.set(f"{NAME}.broken.test", "A", "127.0.0.66"),
        SEARCH,
        f"{NAME}.",
    ),
    Situation("only nameserver: lame", _fault(Fault.REFERRAL)),
    Situation("only nameserver: NXDOMAIN", _fault(Fault.NXDOMAIN)),
    Situation("only nameserver: SERVFAIL", _fault(Fault.SERVFAIL)),
    Situation("only nameserver: silent", _fault(Fault.TIMEOUT)),
)


class Subject:
    """A gateway under comparison, started in front of one endpoint."""

    def __init__(self, argv: list[str]) -> None:
        self.port = free_port()
        self._process = subprocess.Popen(
            [*argv, f"--listen-addr=127.0.0.1:{self.port}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={k: v for k, v in os.environ.items() if not k.startswith("GATEWAY_")},
        )

    def session(self, within_s: float) -> str:
        """Who answers a session; tried again until somebody does or the program ended."""
        began_at = time.monotonic()
        while time.monotonic() - began_at < within_s:
            if (code := self._process.poll()) is not None:
                return f"exits with {code}"
            with contextlib.suppress(OSError), self._connect() as sock:
                if name := sock.recv(100).decode().strip():
                    return name
            time.sleep(0.05)
        return "no session"

    def _connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)

    def end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def compare(situation: Situation, servers: Servers, port: int) -> list[str]:
    """The cells of one line of the table."""
    endpoint = f"--endpoints={situation.name}:{port}"
    ours = [
        str(Path(sys.executable).parent / "etcd-gateway"),
        "start",
        endpoint,
        "--discovery-refresh=1s",
        "--drain-timeout=0s",
        "--workers=1",
    ]
    theirs = ["etcd", "gateway", "start", endpoint]
    servers.reset()
    situation.make(servers)
    cells = [_getent(situation.name)]
    with _running(theirs) as their, _running(ours) as our:
        cells += [their.session(PATIENCE_S), our.session(PATIENCE_S)]
    servers.reset()
    with _running(theirs) as their, _running(ours) as our:
        for subject in (their, our):
            subject.session(PATIENCE_S)
        situation.make(servers)
        time.sleep(SETTLE_S)
        return [*cells, their.session(PATIENCE_S), our.session(PATIENCE_S)]


@contextlib.contextmanager
def _running(argv: list[str]) -> Iterator[Subject]:
    subject = Subject(argv)
    try:
        yield subject
    finally:
        subject.end()


def _getent(name: str) -> str:
    """What the C library finds, which knows no later."""
    found = subprocess.run(
        ["getent", "hosts", name], capture_output=True, text=True, check=False
    ).stdout.split()
    return {"127.0.0.1": "right", "127.0.0.66": "a third party"}[found[0]] if found else "nothing"


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(prog="python -m tests.dns_comparison", description=__doc__).parse_args()
    if not os.environ.get(MARK):
        os.environ[MARK] = "1"
        inside = [sys.executable, "-m", "tests.dns_comparison"]
        os.execvp("unshare", ["unshare", "-m", "-n", "--propagation", "private", *inside])
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    heads = ["situation", "getent", "etcd gateway, start", "we, start"]
    heads += ["etcd gateway, later", "we, later"]
    print("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|", flush=True)
    with (
        tempfile.NamedTemporaryFile("w", suffix=".conf") as conf,
        NameServer("127.0.0.1", 53) as first,
        NameServer("127.0.0.2", 53) as second,
        Backend(greet, name="right") as right,
        Backend(greet, name="a third party", host="127.0.0.66", port=right.port),
    ):
        os.chmod(conf.name, 0o644)
        subprocess.run(["mount", "--bind", conf.name, "/etc/resolv.conf"], check=True)
        for situation in SITUATIONS:
            Path(conf.name).write_text(situation.resolv_conf)
            cells = compare(situation, Servers(first, second), right.port)
            print("| " + " | ".join((situation.text, *cells)) + " |", flush=True)


if __name__ == "__main__":
    main()
