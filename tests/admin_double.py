"""A real process that serves an admin address without a gateway behind it.

Its view changes as the lines on its standard input say; it answers each with ``ok``:
``endpoint NAME STATE``, ``traffic NAME SESSIONS BYTES``, ``remove NAME``, ``many COUNT``,
``worker SLOT STATE``, ``workers COUNT``, ``drain [SECONDS]``, ``refuse NAME REASON``,
``half NAME ADDRESS REASON``, ``degrade NAME REASON``, ``certificate NAME DAYS``,
``static``, ``set FLAG VALUE SOURCE``, ``pid NUMBER``, ``namespace NUMBER``, ``starting``,
``event TEXT``, ``reload complete|failed [FLAG]``: with a flag that only a restart changes.
The first line it prints is its addresses. SIGHUP counts as a reload with the result of the last
``reload`` line.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any, Self

import setproctitle

from gateway.core.endpoint import EndpointState
from gateway.core.messages import EndpointReport, Report
from supervisor.admin import connection
from supervisor.admin.server import AdminServer
from supervisor.admin.sockets import bind_all
from supervisor.core.admin.totals import Totals
from supervisor.core.admin.views import (
    DiscoveryView,
    EndpointView,
    GatewayView,
    ReloadView,
    WorkerView,
)
from supervisor.core.health.health_view import HealthView
from supervisor.core.workers.worker_id import WorkerId
from tests import fork_server

NAMES = ("infra0.example.com:2379", "infra1.example.com:2379", "infra2.example.com:2379")


class SilentLog:
    """Takes every line and keeps none."""

    def debug(self, msg: str, **fields: Any) -> None: ...
    def info(self, msg: str, **fields: Any) -> None: ...
    def warn(self, msg: str, **fields: Any) -> None: ...
    def error(self, msg: str, **fields: Any) -> None: ...

    def bind(self, **fields: Any) -> Self:
        return self

    def set_level(self, level: str) -> None: ...
    def attach(self, loop: asyncio.AbstractEventLoop) -> None: ...
    def close(self) -> None: ...

    @property
    def dropped(self) -> int:
        return 0


class Pretender:
    """The state that a master would have, changed by words."""

    def __init__(self) -> None:
        self.began = time.time()
        self.endpoints = {
            name: EndpointView(
                endpoint=name,
                addresses=(f"10.0.1.{10 + i}",),
                priority=0 if i < 2 else 10,
                weight=5,
                health=HealthView(active=True, since=self.began),
            )
            for i, name in enumerate(NAMES)
        }
        self.traffic = {name: EndpointReport() for name in NAMES}
        self.workers = dict.fromkeys(range(2), "ready")
        self.draining = False
        self.drain_deadline_s: float | None = None
        self.srv: str | None = "example.com"
        self.refused: dict[str, str] = {}
        self.configuration: dict[str, dict[str, Any]] = {
            "balance": {"value": "round-robin", "source": "default"},
            "workers": {"value": "2", "source": "flag", "overrides": {"file": "4"}},
        }
        self.pid = os.getpid()
        self.pid_namespace: int | None = None
        self.started = True
        self.events: list[dict[str, Any]] = []
        self.reload = ReloadView()
        self.next_reload = "complete"
        self.in_vain: tuple[str, ...] = ()

    def obey(self, line: str) -> None:
        word, *rest = line.split()
        match word:
            case "endpoint":
                name, state = rest
                error = "dial: connection refused" if state == "inactive" else None
                health = HealthView(active=error is None, since=time.time(), last_error=error)
                self.change(name, state=EndpointState(state), health=health)
                self.event("deactivated endpoint" if state == "inactive" else "activated", name)
            case "degrade":
                name, reason = rest
                was = self.endpoints[name].health
                health = dataclasses.replace(was, degraded=reason, etcd_version="3.5.1")
                self.change(name, health=health)
            case "certificate":
                name, days = rest
                self.change(name, certificate_not_after=time.time() + 86400 * float(days))
            case "traffic":
                name, sessions, moved = rest
                before = self.traffic[name]
                self.traffic[name] = EndpointReport(
                    sessions=int(sessions),
                    sessions_total=before.sessions_total + int(sessions),
                    bytes_in=before.bytes_in + int(moved),
                    bytes_out=before.bytes_out + 3 * int(moved),
                    dials={"connected": before.sessions_total + int(sessions)},
                    dial_buckets=(0, 0, before.sessions_total + int(sessions)),
                )
            case "remove":
                del self.endpoints[rest[0]]
            case "many":
                for number in range(int(rest[0])):
                    name = f"member{number}.example.com:2379"
                    self.endpoints[name] = EndpointView(
                        endpoint=name, health=HealthView(active=True, since=self.began)
                    )
            case "worker":
                self.workers[int(rest[0])] = rest[1]
            case "starting":
                self.started = False
            case "namespace":
                self.pid_namespace = int(rest[0])
            case "pid":
                self.pid = int(rest[0])
            case "workers":
                self.workers = dict.fromkeys(range(int(rest[0])), "ready")
            case "drain":
                self.draining = True
                self.drain_deadline_s = float(rest[0]) if rest else None
            case "refuse":
                self.refused[rest[0]] = " ".join(rest[1:])
            case "static":
                self.srv = None
                for name in self.endpoints:
                    self.change(name, priority=0, weight=0)
            case "half":
                name, address, *words = rest
                down = HealthView(active=False, since=time.time(), last_error=" ".join(words))
                addresses = (*self.endpoints[name].addresses, address)
                self.change(name, addresses=addresses, address_views={address: down})
            case "set":
                self.configuration[rest[0]] = {"value": rest[1], "source": rest[2]}
            case "event":
                self.event(" ".join(rest))
            case "reload":
                self.next_reload, *in_vain = rest
                self.in_vain = tuple(in_vain)
            case "life":
                connection.CONNECTION_LIFE_S = float(rest[0])

    def change(self, name: str, **fields: Any) -> None:
        self.endpoints[name] = dataclasses.replace(self.endpoints[name], **fields)

    def event(self, msg: str, endpoint: str = "") -> None:
        at = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime())
        level = "warn" if "deactivated" in msg else "info"
        more = {"endpoint": endpoint} if endpoint else {}
        self.events = [*self.events[-49:], {"level": level, "ts": at, "msg": msg, **more}]

    def hang_up(self) -> None:
        failed = self.next_reload == "failed"
        before = self.reload.results
        self.reload = ReloadView(
            last_at=time.time(),
            last_result=self.next_reload,
            last_error="config file: unknown key 'bogus'" if failed else None,
            results={**before, self.next_reload: before.get(self.next_reload, 0) + 1},
            needs_restart=self.in_vain,
            refused=failed,
        )

    def view(self) -> GatewayView:
        totals = Totals()
        reports: dict[int, Report] = {}
        for slot in self.workers:
            many = len(self.workers)
            mine = {n: t for i, (n, t) in enumerate(self.traffic.items()) if i % many == slot}
            sessions = sum(each.sessions for each in mine.values())
            reports[slot] = Report(7, sessions, 0.0004 * (slot + 1), 21_000_000, endpoints=mine)
            totals.report(WorkerId(slot, 1), reports[slot])
        totals.retain(self.endpoints)
        return GatewayView(
            version="1.0.0",
            compiled=False,
            pid=self.pid,
            pid_namespace=self.pid_namespace,
            started_at=self.began,
            uptime_s=time.time() - self.began,
            started=self.started,
            draining=self.draining,
            slots=len(self.workers),
            host="gw1.example.com",
            drain_deadline_s=self.drain_deadline_s,
            configuration=self.configuration,
            listen=("127.0.0.1:23790", "[::1]:23790"),
            snapshot_version=7,
            discovery=DiscoveryView(
                srv=self.srv,
                refused=self.refused,
                last_success_at=self.began,
                next_refresh_s=42.0,
                results={"success": 3},
                by_source={"srv": {"success": 3}},
            ),
            reload=self.reload,
            endpoints=tuple(self.endpoints.values()),
            workers=tuple(
                WorkerView(
                    slot=slot,
                    gen=1,
                    pid=os.getpid() + 1 + slot if state != "backoff" else None,
                    state=state,
                    snapshot_version=7,
                    heartbeat_age_s=0.3 if state != "backoff" else None,
                    report=reports[slot],
                    sessions=totals.worker_sessions(WorkerId(slot, 1)),
                    sessions_total=totals.worker_sessions_total(WorkerId(slot, 1)),
                )
                for slot, state in self.workers.items()
            ),
            sums=totals.sums(),
            events=tuple(self.events),
            limits={"max_sessions": 10_000, "open_files": 20_000},
        )


async def serve(addresses: list[str]) -> None:
    """Serve until standard input ends."""
    setproctitle.setproctitle("etcd-gateway: master [double]")
    pretender = Pretender()
    sockets = bind_all(addresses)
    admin = AdminServer(pretender.view, SilentLog())
    await admin.serve(sockets)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, pretender.hang_up)
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    sys.stdout.write(json.dumps([each.served for each in sockets]) + "\n")
    sys.stdout.flush()
    while line := (await reader.readline()).decode():
        pretender.obey(line)
        sys.stdout.write("ok\n")
        sys.stdout.flush()
    await admin.close()
    for each in sockets:
        each.close()


def main(addresses: Sequence[str]) -> int:
    """The process's own part; returns its exit code."""
    asyncio.run(serve(list(addresses)))
    return 0


class AdminDouble:
    """The process, as its parent sees it; a context manager that ends it."""

    def __init__(self, *addresses: str) -> None:
        words_r, words_w = os.pipe()
        answers_r, answers_w = os.pipe()
        argv = [*fork_server.ADMIN_DOUBLE, *(addresses or ("127.0.0.1:0",))]
        with (
            open(words_r, "rb") as words,
            open(answers_w, "wb") as answers,
            open(2, "wb", closefd=False) as errors,
        ):
            self.process = fork_server.start(
                argv, os.environ, answers, errors, stdin=words_r
            ) or subprocess.Popen(argv, stdin=words, stdout=answers)
        self._words = os.fdopen(words_w, "w", buffering=1)
        self._answers = os.fdopen(answers_r)
        self.addresses: list[str] = json.loads(self._answers.readline() or "[]")

    @property
    def address(self) -> str:
        return self.addresses[0]

    def tell(self, line: str) -> None:
        """Change its state; back when it has."""
        self._words.write(line + "\n")
        assert self._answers.readline() == "ok\n"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._words.close()
        self.process.wait(60)
        self._answers.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
