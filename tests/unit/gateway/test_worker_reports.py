"""What a worker counted reaches a master that reads late: while it serves, and when it ends."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop

from gateway import heartbeat, worker
from gateway.core import messages, wire
from gateway.core.address import HostPort
from gateway.core.endpoint import Endpoint
from gateway.scoreboard import Scoreboard
from gateway.worker import Worker, WorkerStart
from supervisor.core.admin.totals import Totals
from supervisor.core.workers.worker_id import WorkerId
from tests.clients import reset
from tests.logbook import Logbook
from tests.lone_worker import spec_alone
from tests.plane import Backend
from tests.support import free_port, wait_until

WHO = WorkerId(0, 1)

MANY = 50
"""Answers that no socket of :class:`Wired` has room for."""


class Wired:
    """A worker in the test's loop, and its master, which reads when it is told to."""

    def __init__(self) -> None:
        self.loop = uvloop.new_event_loop()
        self.address = HostPort("127.0.0.1", free_port())
        self.scoreboard = Scoreboard()
        self.inbox, self._sender = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        control, self.master = socket.socketpair()
        control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        self.master.setblocking(False)
        self._lines = wire.LineReader()
        self.heard: list[Any] = []
        self.ended = False
        pipe_r, self._pipe_w = os.pipe()
        row = self.scoreboard.open_row(0, 1)
        spec = spec_alone(self.address, self.inbox, self.scoreboard, row)
        self.worker = Worker(WorkerStart(spec, pipe_r, control, Logbook()), self.loop)
        self.worker.listen()

    def tell(self, message: messages.Down) -> None:
        os.write(self._pipe_w, wire.encode(message))

    def fill(self) -> None:
        """Have it answer more than it can send before the master reads."""
        for listing in range(MANY):
            self.tell(messages.ListSessions(listing, 0))
        self.turn()

    def turn(self) -> None:
        self.loop.call_later(0.001, self.loop.stop)
        self.loop.run_forever()

    def run_until(self, predicate: Callable[[], object]) -> None:
        """Turn its loop; the master does not read."""

        def turned() -> object:
            self.turn()
            return predicate()

        wait_until(turned)

    def listen_until(self, predicate: Callable[[], object]) -> None:
        """The same, and the master reads."""

        def read() -> object:
            try:
                data = self.master.recv(1 << 16)
            except BlockingIOError:
                return predicate()
            self.ended = not data
            self.heard += map(wire.decode, self._lines.feed(data))
            return predicate()

        self.run_until(read)

    def heard_of(self, kind: type) -> list[Any]:
        return [each for each in self.heard if type(each) is kind]

    def end(self) -> None:
        """Drain at once, and hear what it still says."""
        self.tell(messages.Drain(0.0))
        self.listen_until(lambda: self.ended)

    def close(self) -> None:
        os.close(self._pipe_w)
        for sock in (self.master, self.inbox, self._sender):
            sock.close()
        self.scoreboard.close()
        self.loop.close()


@pytest.fixture
def wired(monkeypatch: pytest.MonkeyPatch) -> Iterator[Wired]:
    monkeypatch.setattr(worker, "set_title", lambda *_: None)  # this process is no worker
    made = Wired()
    yield made
    made.close()


def arrived(sock: socket.socket, size: int) -> bool:
    """Whether so many bytes wait to be read."""
    ready, _, _ = select.select([sock], [], [], 0)
    return bool(ready) and len(sock.recv(size, socket.MSG_PEEK)) == size


def snapshot(version: int, *endpoints: Endpoint) -> messages.Snapshot:
    return messages.Snapshot(version, endpoints)


def test_a_master_that_reads_late_hears_how_a_worker_ended(
    wired: Wired, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How many sessions it cut, and a report in which they have ended."""
    monkeypatch.setattr(worker, "UNREAD_S", 3600.0)
    with Backend() as backend:
        wired.tell(snapshot(1, backend.endpoint))
        with socket.create_connection((wired.address.host, wired.address.port)) as client:
            wired.listen_until(lambda: wired.scoreboard.total_sessions() == 1)
            with backend.accept():
                wired.fill()
                wired.tell(messages.Drain(0.0))
                wired.run_until(lambda: wired.scoreboard.total_sessions() == 0)
                for _ in range(100):
                    wired.turn()
                wired.listen_until(lambda: wired.ended)
                reset(client)
    assert wired.heard_of(messages.Drained) == [messages.Drained(1)]
    last = wired.heard_of(messages.Report)[-1]
    assert (last.sessions, last.ended) == (0, {"drained": 1})


def test_a_master_that_never_reads_keeps_no_worker(
    wired: Wired, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends though nobody heard what it said last."""
    monkeypatch.setattr(worker, "UNREAD_S", 0.01)
    wired.tell(snapshot(1, Endpoint("a:1", ("127.0.0.1",), 1)))
    wired.turn()
    wired.fill()
    wired.tell(messages.Drain(0.0))
    hung_up = select.poll()
    hung_up.register(wired.master, 0)
    wired.run_until(lambda: hung_up.poll(0))


def test_no_figure_of_an_endpoint_that_left_is_lost(
    wired: Wired, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The master reads nothing from before its last session until well after it left."""
    monkeypatch.setattr(heartbeat, "INTERVAL_S", 0.001)
    totals = Totals()
    with Backend() as one, Backend() as two:
        wired.tell(snapshot(1, one.endpoint, two.endpoint))
        wired.listen_until(lambda: wired.heard_of(messages.Ready))
        wired.fill()
        address = wired.address.host, wired.address.port
        with socket.create_connection(address) as client:
            wired.run_until(lambda: wired.scoreboard.total_sessions() == 1)
            with one.accept() as server:
                client.sendall(b"x" * 1000)
                wired.run_until(lambda: arrived(server, 1000))
        wired.run_until(lambda: wired.scoreboard.total_sessions() == 0)
        wired.tell(snapshot(2, two.endpoint))
        for _ in range(100):
            wired.turn()
        wired.end()
        for report in wired.heard_of(messages.Report):
            totals.report(WHO, report)
        counted = totals.sums().endpoints[one.endpoint.name]
        assert (counted.sessions_total, counted.bytes_in) == (1, 1000)


def test_a_report_that_came_early_is_followed_by_none_that_is_early_too(
    wired: Wired, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a worker suspects is forgotten after some reports, which have to be seconds apart."""
    monkeypatch.setattr(heartbeat, "INTERVAL_S", 3600.0)
    endpoint = Endpoint("a:1", ("127.0.0.1",), 1)

    def count_reports(beats: int) -> int:
        for _ in range(beats):
            wired.worker._heartbeat._beat()
            wired.listen_until(lambda: not wired.worker._control.waiting())
        wired.listen_until(lambda: True)
        return len(wired.heard_of(messages.Report))

    wired.tell(snapshot(1, endpoint))
    wired.listen_until(lambda: wired.heard_of(messages.Report))
    assert count_reports(heartbeat.REPORT_EVERY_BEATS - 3) == 1
    wired.tell(messages.Snapshot(2, (endpoint,), messages.Settings(max_sessions=1)))
    wired.listen_until(lambda: wired.worker._table.version == 2)
    assert count_reports(1) == 2
    assert count_reports(heartbeat.REPORT_EVERY_BEATS - 1) == 2
    assert count_reports(1) == 3
    wired.end()
