"""The prober against real servers: one probe at a time, evidence judged, changes told."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from supervisor.core.config import Config
from supervisor.core.discovery.endpoints import Discovered
from supervisor.core.health.health_view import HealthView
from supervisor.health import probe_queue as module
from supervisor.health.prober import Prober
from tests import servers
from tests.clients import black_hole
from tests.logbook import Logbook
from tests.servers import Server, serving
from tests.support import eventually, free_port, wait_until
from tests.tls import Authority, LateHandshake
from tests.tls import Server as TlsServer

QUICK = Config(
    health_interval_s=0.1,
    health_idle_interval_s=0.1,
    health_timeout_s=1.0,
    retry_delay_s=0.2,
    health_min_active=0,
)
SLOW = Config(health_interval_s=1000.0, retry_delay_s=1000.0, health_timeout_s=5.0)


class Stage:
    """A prober with everything it said."""

    def __init__(self, config: Config) -> None:
        self.log = Logbook()
        self.changes: list[tuple[str, bool]] = []
        self.prober = Prober(config, self.log, self.changed, wall=lambda: 1000.0)

    def changed(self, name: str, view: HealthView) -> None:
        self.changes.append((name, view.active))

    def view(self, name: str) -> HealthView:
        view = self.prober.view(name)
        assert view is not None
        return view


@asynccontextmanager
async def staged(config: Config = QUICK) -> AsyncIterator[Stage]:
    stage = Stage(config)
    try:
        yield stage
    finally:
        await stage.prober.close()
        assert len(asyncio.all_tasks()) == 1, "no probe is left running"


def found(
    *ports: int, addresses: tuple[str, ...] = ("127.0.0.1",), **more: Any
) -> list[Discovered]:
    return [Discovered(f"e{port}:1", f"e{port}", port, addresses, **more) for port in ports]


@asynccontextmanager
async def probed(server: Server, config: Config = QUICK) -> AsyncIterator[tuple[Stage, str]]:
    """A stage whose only endpoint, whose name it is, has just passed its first probe."""
    async with staged(config) as stage:
        name = f"e{server.port}:1"
        stage.prober.set_endpoints(found(server.port))
        await eventually(lambda: stage.view(name).probes == {"passed": 1})
        yield stage, name


def play(scene: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        await scene()

    asyncio.run(run())


def test_good_ones_stay_active_and_are_probed_again() -> None:
    """A healthy endpoint is probed at once, then every interval, and nothing is said of it."""

    async def scene() -> None:
        async with staged() as stage:
            stage.prober.set_endpoints(found(server.port))
            view = stage.view(f"e{server.port}:1")
            assert (view.state, view.since) == ("active", 1000.0)
            await eventually(lambda: stage.view(f"e{server.port}:1").probes.get("passed", 0) >= 3)
            assert stage.changes == []
            assert stage.log.lines == []

    with serving(servers.silent) as server:
        play(scene)


def test_refused_one_is_deactivated_and_comes_back() -> None:
    """Nobody listens: inactive, with the reason; somebody does again: active by the next probe."""
    port = free_port()
    name = f"e{port}:1"

    async def scene() -> None:
        async with staged() as stage:
            stage.prober.set_endpoints(found(port))
            await eventually(lambda: stage.changes == [(name, False)])
            view = stage.view(name)
            assert (view.state, view.last_error) == ("inactive", "connection refused")
            assert view.last_error_at is not None
            assert view.since is not None
            assert abs(view.last_error_at - view.since) < 60
            assert stage.log.said("deactivated endpoint") == [
                {"endpoint": name, "error": "connection refused"}
            ]
            with serving(servers.silent, port=port):
                await eventually(lambda: stage.changes == [(name, False), (name, True)])
                assert stage.log.said("activated") == [{"endpoint": name}]
                assert stage.view(name).transitions == {"active": 1, "inactive": 1}
                assert stage.view(name).probe_failures >= 1

    play(scene)


@pytest.mark.slow
def test_zombies_are_found() -> None:
    """503, a body that says false, and accept-and-hang turn inactive with checks by HTTP."""

    async def scene(*ports: int) -> None:
        async with staged(replace(QUICK, health_check="http")) as stage:
            stage.prober.set_endpoints(found(*ports))
            await eventually(lambda: len(stage.changes) == 3)
            errors = [stage.view(f"e{port}:1").last_error for port in ports]
            assert errors[0] == "HTTP status 503"
            assert errors[1] == 'health is "false"'
            assert str(errors[2]).startswith("timeout: no answer")

    with (
        serving(servers.answer("503 Service Unavailable")) as one,
        serving(servers.answer("200 OK", b'{"health":"false"}')) as two,
        serving(servers.silent) as three,
    ):
        play(lambda: scene(one.port, two.port, three.port))


@pytest.mark.slow
def test_black_hole_is_found() -> None:
    """SYNs into nothing turn it inactive within the timeout."""

    async def scene(port: int) -> None:
        async with staged() as stage:
            stage.prober.set_endpoints(found(port))
            await eventually(lambda: stage.changes == [(f"e{port}:1", False)])
            assert str(stage.view(f"e{port}:1").last_error).startswith("timeout: no connect")

    with black_hole() as (_, port):
        play(lambda: scene(port))


def test_failed_dial_deactivates_at_once_and_is_refuted_at_once() -> None:
    """A worker's failed dial counts before any probe, and a good probe follows without waiting."""

    async def scene(server: Server) -> None:
        async with staged(SLOW) as stage:
            name = f"e{server.port}:1"
            stage.prober.set_endpoints(found(server.port))
            await eventually(lambda: stage.view(name).probes)
            stage.prober.dial_failed(name, "connection refused")
            assert stage.changes == [(name, False)]
            await eventually(lambda: stage.changes == [(name, False), (name, True)])

    with serving(servers.silent) as server:
        play(lambda: scene(server))


def test_late_timeout_is_no_evidence() -> None:
    """A dial that timed out began before the last good probe: checked, not believed."""

    async def scene(server: Server) -> None:
        async with probed(server, SLOW) as (stage, name):
            stage.prober.dial_failed(name, "timeout", "timeout")
            await eventually(lambda: stage.view(name).probes == {"passed": 2})
            assert stage.changes == []

    with serving(servers.silent) as server:
        play(lambda: scene(server))


@pytest.mark.slow
def test_slow_dial_is_a_hint() -> None:
    """An endpoint that lost a hedge is looked at, not deactivated."""

    async def scene(server: Server) -> None:
        async with probed(server, SLOW) as (stage, name):
            stage.prober.dial_failed(name, "slower than the next endpoint", "abandoned")
            await eventually(lambda: stage.view(name).probes == {"passed": 2})
            assert stage.changes == []
            assert stage.view(name).last_error == "slower than the next endpoint"

    with serving(servers.silent) as server:
        play(lambda: scene(server))


def test_what_this_host_cannot_dial_is_told_and_not_believed() -> None:
    """Until a probe or a session reaches the endpoint."""

    async def scene(server: Server) -> None:
        async with probed(server, SLOW) as (stage, name):
            stage.prober.dial_failed(name, "network is unreachable", "local")
            assert stage.view(name).cut_off == "network is unreachable"
            assert stage.view(name).last_error == "network is unreachable"
            assert stage.changes == []
            stage.prober.take_traffic(name, sessions=1, dials=1, bytes_out=0)
            assert stage.view(name).cut_off is None

    with serving(servers.silent) as server:
        play(lambda: scene(server))


def test_good_dial_activates() -> None:
    """A worker that failed open and got through makes it active without waiting for a probe."""
    port = free_port()

    async def scene() -> None:
        async with staged(SLOW) as stage:
            name = f"e{port}:1"
            stage.prober.set_endpoints(found(port))
            await eventually(lambda: stage.changes == [(name, False)])
            stage.prober.dial_succeeded(name)
            assert stage.changes[1] == (name, True)

    play(scene)


def test_unknown_names_are_ignored() -> None:
    """Evidence about an endpoint that has just gone harms nobody."""

    async def scene() -> None:
        async with staged() as stage:
            stage.prober.dial_failed("x:1", "refused")
            stage.prober.dial_succeeded("x:1")
            assert stage.prober.view("x:1") is None

    play(scene)


def test_checks_off() -> None:
    """Without checks nothing is probed until a dial fails; then TCP brings it back."""

    async def scene(server: Server) -> None:
        async with staged(replace(QUICK, health_check="off")) as stage:
            name = f"e{server.port}:1"
            stage.prober.set_endpoints(found(server.port))
            for _ in range(50):
                await asyncio.sleep(0)
            assert server.accepted == 0
            stage.prober.dial_failed(name, "connection refused")
            await eventually(lambda: stage.changes == [(name, False), (name, True)])
            await eventually(lambda: stage.view(name).probes == {"passed": 1})

    with serving(servers.silent) as server:
        play(lambda: scene(server))


@pytest.mark.slow
def test_gone_ones_are_probed_no_more() -> None:
    """An endpoint that left is forgotten while its probe runs, and its verdict is not told."""

    async def scene(server: Server) -> None:
        async with staged(replace(QUICK, health_check="http")) as stage:
            stage.prober.set_endpoints(found(server.port))
            await eventually(lambda: server.open == 1)
            stage.prober.set_endpoints([])
            await eventually(lambda: server.open == 0)
            assert stage.prober.view(f"e{server.port}:1") is None
            assert stage.changes == []

    with serving(servers.silent) as server:
        play(lambda: scene(server))


@pytest.mark.slow
def test_changed_address_is_probed_at_once() -> None:
    """The verdict on an old address does not count for the new one."""

    async def scene(server: Server) -> None:
        async with staged(replace(SLOW, health_check="http", health_timeout_s=2.0)) as stage:
            name = f"e{server.port}:1"
            stage.prober.set_endpoints(found(server.port))
            await eventually(lambda: server.open == 1)
            stage.prober.set_endpoints(found(server.port, addresses=("127.0.0.9",)))
            await eventually(lambda: stage.changes == [(name, False)])
            assert stage.view(name).last_error == "connection refused"
            assert stage.view(name).probes == {"failed": 1}

    with serving(servers.silent) as server:
        play(lambda: scene(server))


def test_weights_are_nothing_to_probe_for() -> None:
    """A new weight keeps the schedule."""

    async def scene(server: Server) -> None:
        async with probed(server, SLOW) as (stage, name):
            stage.prober.set_endpoints(found(server.port, weight=7))
            for _ in range(50):
                await asyncio.sleep(0.001)
            assert stage.view(name).probes == {"passed": 1}

    with serving(servers.silent) as server:
        play(lambda: scene(server))


def test_reconfigured() -> None:
    """A reload from TCP to HTTP probes at once, and finds what TCP could not."""

    async def scene(server: Server) -> None:
        async with probed(server, SLOW) as (stage, name):
            stage.prober.reconfigure(replace(SLOW, health_check="http"))
            await eventually(lambda: stage.changes == [(name, False)])

    with serving(servers.answer("500 Oops")) as server:
        play(lambda: scene(server))


def test_our_own_troubles_are_told_once() -> None:
    """A CA file that cannot be read deactivates nobody, and is logged once, not for every probe."""

    async def scene(server: Server) -> None:
        config = replace(QUICK, health_check="tls", trusted_ca_file="/nonexistent")
        async with staged(config) as stage:
            name = f"e{server.port}:1"
            stage.prober.set_endpoints(found(server.port))
            await eventually(lambda: stage.view(name).probes.get("undecided", 0) >= 2)
            assert stage.changes == []
            assert len(stage.log.said("cannot probe")) == 1

    with serving(servers.silent) as server:
        play(lambda: scene(server))


def test_a_bug_does_not_end_probing() -> None:
    """Whatever a probe raises is told, and the next probe comes."""

    async def scene() -> None:
        async with staged(replace(QUICK, health_check="http", health_path="/ spaced")) as stage:
            stage.prober.set_endpoints(found(server.port))
            name = f"e{server.port}:1"
            await eventually(lambda: stage.view(name).probes.get("undecided", 0) >= 2)
            assert "LocalProtocolError" in stage.log.said("cannot probe")[0]["error"]

    with serving(servers.silent) as server:
        play(scene)


@pytest.mark.slow
def test_flapping_is_logged_and_shown() -> None:
    """An endpoint that goes up and down is held inactive; log and status say for how long."""

    async def scene(server: Server) -> None:
        config = replace(SLOW, health_interval_s=0.05)
        async with staged(config) as stage:
            name = f"e{server.port}:1"
            stage.prober.set_endpoints(found(server.port))
            for _ in range(5):
                await eventually(lambda: stage.view(name).active)
                stage.prober.dial_failed(name, "reset")
            assert 0 < stage.view(name).hold_s <= 1.0
            assert stage.log.said("deactivated endpoint")[-1]["flaps"] == 4
            await eventually(lambda: stage.view(name).active)

    with serving(servers.silent) as server:
        play(lambda: scene(server))


@pytest.mark.slow
def test_many_endpoints_are_bounded() -> None:
    """Of 300 endpoints that hang, no more than the limit are probed at once, and all are judged."""
    most = [0]

    async def scene(port: int) -> None:
        async with staged(replace(QUICK, health_timeout_s=0.2, retry_delay_s=60.0)) as stage:
            many = [Discovered(f"e{i}:1", "e", port, ("127.0.0.1",)) for i in range(300)]
            stage.prober.set_endpoints(many)

            def judged() -> bool:
                most[0] = max(most[0], stage.prober.queue._running)
                return len(stage.changes) == 300

            # A probe that got no CPU is excused, and made again a minute later.
            await eventually(judged, 150.0)

    with black_hole() as (_, port):
        play(lambda: scene(port))
    assert most[0] == module.MAX_CONCURRENT


@pytest.mark.slow
@pytest.mark.parametrize(("allowed", "held"), [(7, 7), (0, 1)])
def test_probes_hold_no_more_sockets_than_they_may(allowed: int, held: int) -> None:
    """With room for none, endpoints are probed one at a time: unprobed they would never return."""
    most = [0]

    async def scene(port: int) -> None:
        async with staged(replace(QUICK, health_timeout_s=0.05, retry_delay_s=60.0)) as stage:
            stage.prober.queue.max_sockets = allowed
            stage.prober.set_endpoints(
                [Discovered(f"e{i}:1", "e", port, ("127.0.0.1",)) for i in range(20)]
            )

            def judged() -> bool:
                most[0] = max(most[0], len(stage.prober.queue._tasks))
                return len(stage.changes) == 20

            # A probe that got no CPU is excused, and made again a minute later.
            await eventually(judged, 150.0)

    with black_hole() as (_, port):
        play(lambda: scene(port))
    assert most[0] == held


def test_a_handshake_under_way_ends_before_the_gateway_does(tmp_path: Path) -> None:
    """A stop while TLS is being negotiated lets it end: the server has nothing to complain of."""
    authority = Authority(tmp_path)
    late = LateHandshake(authority.context("127.0.0.1"))

    async def scene(server: Server) -> None:
        config = replace(SLOW, health_check="tls", trusted_ca_file=authority.file)
        stage = Stage(config)
        one = Discovered("a:1", "127.0.0.1", server.port, ("127.0.0.1",))
        stage.prober.set_endpoints([one])
        await eventually(lambda: server.open == 1)
        asyncio.get_running_loop().call_soon(late.go_on.set)
        await stage.prober.close()
        assert stage.changes == []

    with serving(late) as server:
        play(lambda: scene(server))
        wait_until(lambda: server.ends == ["eof"], what="the connection's end")
        assert late.heard == [b""]


def test_a_stop_breaks_off_no_handshake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes longer than a stop waits for it, as with a far member, ends in order, too."""
    monkeypatch.setattr("supervisor.health.probe_queue.CLOSE_S", 0.01)
    monkeypatch.setattr("supervisor.system.connections.LINGER_S", 60.0)
    authority = Authority(tmp_path)
    late = LateHandshake(authority.context("127.0.0.1"))

    async def scene(server: TlsServer) -> None:
        stage = Stage(replace(SLOW, health_check="tls", trusted_ca_file=authority.file))
        stage.prober.set_endpoints([Discovered("a:1", "127.0.0.1", server.port, ("127.0.0.1",))])
        await eventually(lambda: server.connections == 1)
        asyncio.get_running_loop().call_later(0.1, late.go_on.set)
        await stage.prober.close()

    with TlsServer(late) as server:
        play(lambda: scene(server))
    assert late.heard == [b""]


def test_no_probe_begins_while_it_pauses() -> None:
    """Before an upgrade probes end and none begins; if nothing comes of it, they go on."""

    async def scene(server: Server) -> None:
        async with staged(replace(QUICK, health_check="http")) as stage:
            name = f"e{server.port}:1"
            stage.prober.set_endpoints(found(server.port))
            await eventually(lambda: stage.view(name).probes.get("passed"))
            await stage.prober.queue.pause()
            await eventually(lambda: not stage.prober.queue._tasks)  # a busy machine needs longer
            before = server.accepted
            await eventually(lambda: stage.prober.queue._waiting)
            assert server.accepted == before
            stage.prober.queue.resume()
            await eventually(lambda: server.accepted > before)

    with serving(servers.answer("200 OK")) as server:
        play(lambda: scene(server))


def test_a_stop_does_not_wait_for_a_server_that_says_nothing() -> None:
    """A probe that hangs is cut when its time to leave is over."""

    async def scene(server: Server) -> None:
        stage = Stage(replace(SLOW, health_check="http", health_timeout_s=1000.0))
        stage.prober.set_endpoints(found(server.port))
        await eventually(lambda: server.open == 1)
        async with asyncio.timeout(60):
            await stage.prober.close()

    with serving(servers.silent) as server:
        play(lambda: scene(server))


def test_too_few_active_ones_are_kept() -> None:
    """Of four endpoints that all fail, probes take three; the last one stays, and the log says so.

    A worker that is refused by the last one takes it nevertheless.
    """
    ports = [free_port() for _ in range(4)]

    async def scene() -> None:
        async with staged(replace(QUICK, health_min_active=50)) as stage:
            stage.prober.set_endpoints(found(*ports))
            await eventually(
                lambda: stage.log.said("too few endpoints are active, failed probes take none away")
            )
            said = stage.log.said("too few endpoints are active, failed probes take none away")
            assert (said[0]["active"], said[0]["endpoints"]) == (1, 4)
            kept = said[0]["endpoint"]
            failures = stage.view(kept).probe_failures
            await eventually(lambda: stage.view(kept).probe_failures >= failures + 3)
            assert stage.view(kept).active
            assert stage.view(kept).kept
            assert len(stage.changes) == 3
            stage.prober.dial_failed(kept, "connection refused")
            assert stage.changes[3] == (kept, False)
            assert not stage.view(kept).kept

    play(scene)


def test_retired_ones_do_not_count() -> None:
    """An endpoint that gets no new sessions makes no quorum of the active ones."""
    ports = [free_port() for _ in range(2)]

    async def scene(server: Server) -> None:
        async with staged(replace(QUICK, health_min_active=60)) as stage:
            retired = found(server.port)
            stage.prober.set_endpoints(
                [*found(*ports), *retired], retired=[each.name for each in retired]
            )
            await eventually(lambda: any(stage.view(f"e{port}:1").kept for port in ports))
            assert len(stage.changes) == 1

    with serving(servers.silent) as server:
        play(lambda: scene(server))


@pytest.mark.slow
def test_what_timed_out_while_the_loop_stood_still_is_no_evidence() -> None:
    """The answer came while the master slept: the probe is made again, and nothing is taken."""

    async def scene(server: Server) -> None:
        config = replace(SLOW, health_check="http", health_timeout_s=0.3)
        async with staged(config) as stage:
            stage.prober.set_endpoints(found(server.port))
            name = f"e{server.port}:1"
            await eventually(asked.is_set)
            time.sleep(1.0)  # noqa: ASYNC251 (the loop stands still: that is the test)
            await eventually(lambda: stage.view(name).probes.get("passed"))
            assert stage.view(name).probes["undecided"] >= 1
            assert stage.changes == []
            assert "the gateway got no CPU for" in stage.log.said("cannot probe")[0]["error"]

    asked = threading.Event()

    def late(conn: socket.socket) -> None:
        conn.recv(65536)
        asked.set()
        if server.accepted == 1:
            time.sleep(0.5)
        conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with serving(late) as server:
        play(lambda: scene(server))


def test_a_host_that_is_silent_is_found_by_a_loop_that_is_always_late() -> None:
    """Many short standstills are no excuse for a host that the kernel heard nothing of."""

    async def scene(port: int) -> None:
        async with staged(replace(QUICK, health_timeout_s=0.4)) as stage:
            stage.prober.set_endpoints(found(port))
            async with asyncio.timeout(60):
                while not stage.changes:
                    time.sleep(0.05)  # noqa: ASYNC251 (the loop is late: that is the test)
                    await asyncio.sleep(0)
            assert stage.changes == [(f"e{port}:1", False)]

    with black_hole() as (_, port):
        play(lambda: scene(port))


@pytest.mark.slow
def test_an_endpoint_that_says_nothing_is_found_by_a_loop_with_much_to_do() -> None:
    """Many short standstills are our ordinary work, and no excuse for it."""

    async def scene(server: Server) -> None:
        config = replace(QUICK, health_check="http", health_timeout_s=2.0)
        async with staged(config) as stage:
            stage.prober.set_endpoints(found(server.port))
            async with asyncio.timeout(60):
                while not stage.changes:
                    time.sleep(0.03)  # noqa: ASYNC251 (the loop has much to do: that is the test)
                    await asyncio.sleep(0)
            assert stage.changes == [(f"e{server.port}:1", False)]

    with serving(servers.silent) as server:
        play(lambda: scene(server))


def test_a_host_may_have_answered_while_the_loop_stood_still_for_long() -> None:
    """A host of ours that was frozen sends its request to connect again only then."""

    async def scene(port: int) -> None:
        async with staged(replace(SLOW, health_timeout_s=0.4)) as stage:
            stage.prober.set_endpoints(found(port))
            await asyncio.sleep(0.1)
            time.sleep(0.5)  # noqa: ASYNC251 (the loop stands still: that is the test)
            await eventually(lambda: stage.view(f"e{port}:1").probes.get("undecided"))
            assert stage.changes == []

    with black_hole() as (_, port):
        play(lambda: scene(port))


def test_a_failure_counts_while_the_loop_goes_round() -> None:
    """A loop that is not late finds an endpoint that says nothing."""

    async def scene(server: Server) -> None:
        config = replace(QUICK, health_check="http", health_timeout_s=0.3)
        async with staged(config) as stage:
            stage.prober.set_endpoints(found(server.port))
            await eventually(lambda: stage.changes == [(f"e{server.port}:1", False)])

    with serving(servers.silent) as server:
        play(lambda: scene(server))


@pytest.mark.slow
@pytest.mark.usefixtures("priority")  # no second may pass without traffic
def test_traffic_spares_probes_and_silence_brings_them_back() -> None:
    """While an endpoint answers its sessions it is not probed; when it stops answering, it is."""

    async def scene(server: Server) -> None:
        config = replace(SLOW, health_interval_s=1.0, health_idle_interval_s=1000.0)
        async with probed(server, config) as (stage, name):
            moved = 0

            def two_intervals_are_over() -> bool:
                nonlocal moved
                moved += 1
                stage.prober.take_traffic(name, sessions=1, dials=0, bytes_out=moved)
                return time.monotonic() > began + 2.5

            began = time.monotonic()
            await eventually(two_intervals_are_over)
            assert stage.view(name).probes == {"passed": 1}
            stage.prober.take_traffic(name, sessions=1, dials=0, bytes_out=moved)
            await eventually(lambda: stage.view(name).probes == {"passed": 2})
            stage.prober.take_traffic("unknown:1", sessions=1, dials=0, bytes_out=1)

    with serving(servers.silent) as server:
        play(lambda: scene(server))


def test_idle_ones_are_left_alone() -> None:
    """An endpoint that nobody uses is not asked again before its idle interval."""

    async def scene(server: Server) -> None:
        config = replace(SLOW, health_interval_s=0.05, health_idle_interval_s=1000.0)
        async with staged(config) as stage:
            name = f"e{server.port}:1"
            stage.prober.set_endpoints(found(server.port))
            await eventually(
                lambda: (
                    stage.prober._watches[name].health.next_probe_at
                    > asyncio.get_running_loop().time() + 1
                )
            )
            assert set(stage.view(name).probes) == {"passed"}

    with serving(servers.silent) as server:
        play(lambda: scene(server))


def test_no_threads() -> None:
    """Probing starts no thread, whatever the kind."""

    async def scene(port: int) -> None:
        async with staged(replace(QUICK, health_check="https")) as stage:
            stage.prober.set_endpoints(found(port))
            await eventually(lambda: stage.changes)
            assert threading.active_count() == before

    before = threading.active_count()
    play(lambda: scene(free_port()))
