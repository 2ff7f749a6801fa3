"""``python -m tests.benchmarks.listing``: what the list of sessions costs, over many idle ones.

For each question the time to the answer, the CPU time of the master and of all workers, and the
longest time that a worker's loop was late meanwhile; and how late it was while nobody asked.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence

from supervisor.cli.admin_client import fetch_sessions, fetch_status
from tests.benchmarks.processes import cpu_s_of
from tests.gateway import Gateway
from tests.support import wait_until

PER_PROCESS = 9_000
"""Sessions of one process of clients or of servers: a limit of 20,000 descriptors allows it."""

SETTLE_S = 2.5
"""Two reports of every worker."""

SERVER = """
import resource, socket
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
listener = socket.create_server(("127.0.0.2", 0), backlog=4096)
print(listener.getsockname()[1], flush=True)
kept = []
while True:
    kept.append(listener.accept()[0])
"""

CLIENT = """
import resource, socket, sys
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
kept = []
for n in range(int(sys.argv[2])):
    kept.append(socket.socket())
    kept[-1].bind((f"127.0.1.{n % 200 + 1}", 0))
    kept[-1].connect(("127.0.0.1", int(sys.argv[1])))
print("connected", flush=True)
sys.stdin.read()
"""

QUESTIONS: Mapping[str, Mapping[str, str]] = {
    "a page of 1,000, the oldest": {},
    "a page of 1,000, by bytes": {"sort": "bytes"},
    "one session": {"limit": "1"},
    "a page of 10,000": {"limit": "10000"},
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.listing", description=__doc__)
    parser.add_argument("--sessions", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(argv)
    parts = -(-options.sessions // PER_PROCESS)
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        admin = f"unix:{directory}/admin.sock"
        ports = [stack.enter_context(running(SERVER)) for _ in range(parts)]
        gateway = stack.enter_context(
            Gateway(
                f"--admin-addr={admin}",
                "--drain-timeout=0s",
                endpoints=[f"127.0.0.2:{port}" for port in ports],
                workers=parts + 1,
            )
        )
        gateway.wait_ready(60)
        for part in range(parts):
            count = min(PER_PROCESS, options.sessions - part * PER_PROCESS)
            stack.enter_context(running(CLIENT, str(gateway.port), str(count)))
        wait_until(
            lambda: fetch_status([admin])["totals"]["sessions"] == options.sessions, 120, "sessions"
        )
        time.sleep(SETTLE_S)
        print(f"{options.sessions} idle sessions, {parts + 1} workers, {os.cpu_count()} CPUs")
        print(f"{'':30}{'ms':>8}{'master ms':>12}{'workers ms':>12}{'lag ms':>8}")
        show("nobody asks", [measure(admin, gateway, None) for _ in range(options.rounds)])
        for name, query in QUESTIONS.items():
            show(name, [measure(admin, gateway, query) for _ in range(options.rounds)])
    return 0


@contextlib.contextmanager
def running(program: str, *arguments: str) -> Iterator[str]:
    """A process of this program, and the first line that it printed."""
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def measure(admin: str, gateway: Gateway, query: Mapping[str, str] | None) -> tuple[float, ...]:
    """Time of the answer, CPU of the master and of the workers, all in milliseconds; the lag."""
    workers = gateway.workers()
    time.sleep(SETTLE_S)
    began_at = time.monotonic()
    master_before_s, workers_before_s = cpu_s_of(gateway.pid), sum(map(cpu_s_of, workers))
    if query is not None:
        document = fetch_sessions([admin], query)
        if document["incomplete"]:
            print(f"incomplete, the machine is too busy: {document['missing']}")
    took_s = time.monotonic() - began_at
    master_s = cpu_s_of(gateway.pid) - master_before_s
    workers_s = sum(map(cpu_s_of, workers)) - workers_before_s
    time.sleep(1.2)  # the next report tells of the lag until then
    lag_s = max(each["loop_lag_s"] for each in fetch_status([admin])["workers"])
    return tuple(1e3 * each for each in (took_s, master_s, workers_s, lag_s))


def show(name: str, samples: Sequence[tuple[float, ...]]) -> None:
    """The medians, and the greatest lag."""
    columns = [sorted(each) for each in zip(*samples, strict=True)]
    middle = [each[len(each) // 2] for each in columns[:3]]
    print(f"{name:30}{middle[0]:8.0f}{middle[1]:12.0f}{middle[2]:12.0f}{columns[3][-1]:8.1f}")


if __name__ == "__main__":
    sys.exit(main())
