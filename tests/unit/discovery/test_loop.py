"""Following: first resolution, refreshes, reloads, and what is kept when DNS fails."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.core.address import HostPort, parse_endpoint, parse_listen
from supervisor.core.admin.views import DiscoveryView
from supervisor.core.config import Config, StaticTarget
from supervisor.core.discovery.adoption import AdoptedList
from supervisor.core.discovery.endpoints import Discovered
from supervisor.core.discovery.member_list import MemberTarget
from supervisor.core.discovery.system_names import Files
from supervisor.core.discovery.targets import describe_tls_check
from supervisor.discovery import loop as loop_module
from supervisor.discovery.listen_addresses import resolve_listen
from supervisor.discovery.loop import DiscoveryLoop, NoEndpointsError
from supervisor.discovery.requests import ReloadFailedError
from supervisor.discovery.targets import BadTargetError
from supervisor.system.shared_tls import SharedTls
from tests.dns import Fault, NameServer
from tests.logbook import Logbook
from tests.support import eventually, free_port
from tests.tls import Authority, Server, hang_up, silent

SSL, PLAIN = "_etcd-client-ssl._tcp.test", "_etcd-client._tcp.test"
Async = Coroutine[Any, Any, None]


class Told:
    """Who is told of endpoints: keeps every list."""

    def __init__(self) -> None:
        self.lists: list[tuple[Discovered, ...]] = []

    def __call__(self, found: tuple[Discovered, ...]) -> None:
        self.lists.append(found)

    @property
    def names(self) -> list[str]:
        return [endpoint.name for endpoint in self.lists[-1]] if self.lists else []


@pytest.fixture
def ns() -> Iterator[NameServer]:
    with NameServer() as server:
        server.negative_ttl = 0
        for number in (1, 2, 3):
            server.set(f"n{number}.test", "A", f"127.0.0.{number}")
        server.set(PLAIN, "SRV", "0 0 2379 n1.test.", "0 0 2379 n2.test.")
        yield server


@pytest.fixture
def config(ns: NameServer) -> Config:
    return Config(
        discovery_srv="test",
        insecure_discovery=True,
        nameserver=(ns.address,),
        removal_grace_s=30,
        listen_addr=(HostPort("127.0.0.1", 23790),),
    )


@pytest.fixture
def files(tmp_path: Path) -> Files:
    (tmp_path / "hosts").write_text("127.0.0.1 localhost\n")
    (tmp_path / "resolv.conf").write_text("options attempts:1 timeout:30\n")
    return Files(str(tmp_path / "hosts"), str(tmp_path / "resolv.conf"), domain="")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """TTLs down to a tenth of a second, and one emergency every tenth of a second."""
    monkeypatch.setattr("supervisor.core.discovery.answers.MIN_TTL_S", 0.1)
    monkeypatch.setattr("supervisor.core.discovery.answers.FIRST_RETRY_S", 0.05)
    monkeypatch.setattr("supervisor.core.discovery.answers.MAX_FIRST_RETRY_S", 0.05)
    monkeypatch.setattr("supervisor.core.discovery.admission.FIRST_RETRY_S", 0.05)
    monkeypatch.setattr("supervisor.core.discovery.schedule.URGENT_S", 0.1)


def write(path: str, text: str) -> None:
    Path(path).write_text(text)


def remove(path: str) -> None:
    Path(path).unlink()


class Fixture:
    """A discovery_loop, what it told and what it logged."""

    def __init__(self, config: Config, files: Files) -> None:
        self.config = config
        self.told = Told()
        self.log = Logbook()
        self.checks: list[str] = []
        """The TLS check that the endpoints had passed, by the time they were told."""
        self.it = DiscoveryLoop(config, self.log, self._tell, files=files, draw=lambda _: 0)

    def _tell(self, found: tuple[Discovered, ...]) -> None:
        self.told(found)
        self.checks.append(self.it.tls_check)

    async def start(self) -> None:
        await self.it.start(self.config.listen_addr)


@contextlib.asynccontextmanager
async def started(config: Config, files: Files) -> AsyncIterator[Fixture]:
    fixture = Fixture(config, files)
    await fixture.start()
    try:
        yield fixture
    finally:
        await fixture.it.close()


def static(config: Config, *names: str) -> Config:
    pairs = (name.rsplit(":", 1) for name in names)
    endpoints = tuple(StaticTarget(HostPort(h, int(p))) for h, p in pairs)
    return replace(config, endpoints=endpoints, endpoints_given=True)


def test_start_finds_the_endpoints_of_both_names(
    config: Config, files: Files, ns: NameServer
) -> None:
    """The first resolution tells the endpoints of both SRV names, once each."""
    ns.set(SSL, "SRV", "0 0 2379 n1.test.")

    async def main() -> None:
        async with started(config, files) as f:
            assert f.told.names == ["n1.test:2379", "n2.test:2379"]
            assert [e.tls for e in f.told.lists[-1]] == [True, False]
            assert f.it.view.srv == "test"
            assert f.it.view.last_error is None
            assert f.it.view.results == {"success": 1}
            assert f.it.view.last_success_at is not None
            assert f.it.view.next_refresh_s is not None
            assert f.log.messages == ["discovered cluster from SRV"]

    asyncio.run(main())


def test_literal_endpoints_need_no_dns(config: Config, files: Files, ns: NameServer) -> None:
    """Literal static endpoints are told at once, nothing is asked, nothing is due."""
    literal = static(replace(config, discovery_srv=""), "127.0.0.1:1", "::1:2")

    async def main() -> None:
        async with started(literal, files) as f:
            assert f.told.names == ["127.0.0.1:1", "[::1]:2"]
            assert f.it.view.next_refresh_s is None
            assert f.it.view.last_success_at is not None
            assert f.it.view.srv is None

    asyncio.run(main())
    assert ns.queries == []


@pytest.mark.slow
def test_names_that_resolve_are_used_at_once(config: Config, files: Files, ns: NameServer) -> None:
    """A name that gets no answer delays nobody else; it joins when it is found."""
    ns.faults["n1.test"] = Fault.TIMEOUT
    both = static(replace(config, discovery_srv=""), "n1.test:1", "n2.test:2", "127.0.0.1:3")

    async def main() -> None:
        async with started(both, files) as f:
            assert f.told.names == ["n2.test:2", "127.0.0.1:3"]
            assert f.it.view.results == {}  # the resolution goes on
            assert f.it.view.last_success_at is None
            assert "n1.test" in str(f.it.view.last_error)
            ns.faults.clear()
            await eventually(lambda: f.told.names == ["n1.test:1", "n2.test:2", "127.0.0.1:3"])

    asyncio.run(main())


def test_a_name_with_a_trailing_dot_is_no_other_name(
    config: Config, files: Files, ns: NameServer
) -> None:
    """A wildcard in the search list gets no session of an absolute name, and no listen address."""
    write(files.resolv_conf, "search apps.test\noptions ndots:5\n")
    ns.set("n1.test.apps.test", "A", "127.0.0.66")
    absolute = replace(
        config,
        discovery_srv="",
        endpoints=(StaticTarget(parse_endpoint("n1.test.:1")[0]),),
        endpoints_given=True,
    )

    async def main() -> None:
        async with started(absolute, files) as f:
            (found,) = f.told.lists[-1]
            assert (found.name, found.addresses) == ("n1.test:1", ("127.0.0.1",))
        listen = (parse_listen("n1.test.:2"), parse_listen("localhost.:3"))
        assert set(await resolve_listen(listen, (ns.address,), files=files)) >= {
            HostPort("127.0.0.1", 2),
            HostPort("127.0.0.1", 3),
        }

    asyncio.run(main())
    assert ns.asked("n1.test.apps.test", "A") == 0


@pytest.mark.slow
def test_srv_targets_that_resolve_are_used_at_once(
    config: Config, files: Files, ns: NameServer
) -> None:
    """Where no TLS check follows, an SRV target without an answer delays nobody else."""
    ns.set(PLAIN, "SRV", "0 0 2379 n1.test.", "0 0 2379 n2.test.")
    ns.faults["n1.test"] = Fault.TIMEOUT

    async def main() -> None:
        async with started(config, files) as f:
            assert f.told.names == ["n2.test:2379"]
            assert f.it.view.results == {}  # the resolution goes on
            assert f.it.view.last_success_at is None
            ns.faults.clear()
            await eventually(lambda: f.told.names == ["n1.test:2379", "n2.test:2379"])

    asyncio.run(main())


@pytest.mark.parametrize(
    "records", [(), ("0 0 0 .",), ("0 0 2379 gone.test.",), ("0 0 0 n1.test.",)]
)
def test_a_definite_no_at_start_ends_it(
    config: Config, files: Files, ns: NameServer, records: tuple[str, ...]
) -> None:
    """NXDOMAIN, a lone dot, only absent targets, only unusable records: there is nothing to wait
    for, and the default endpoint is never a silent fallback."""
    ns.set(PLAIN, "SRV", *records)

    async def main() -> None:
        fixture = Fixture(config, files)
        with pytest.raises(NoEndpointsError, match=r"SRV _etcd-client\._tcp\.test"):
            await fixture.start()
        assert fixture.told.lists == []

    asyncio.run(main())


@pytest.mark.parametrize("fault", [Fault.SERVFAIL, Fault.NXDOMAIN])
def test_after_an_upgrade_a_failing_dns_leaves_the_endpoints_in_use(
    config: Config, files: Files, ns: NameServer, fault: Fault
) -> None:
    """Whatever DNS says, the start goes on trying, says that they stay, and counts on."""
    ns.faults[""] = fault
    before = DiscoveryView(srv="test", last_success_at=1.0, results={"success": 7})
    found = Discovered("n9.test:1", "n9.test", 1, ("127.0.0.9",))  # no record of it is known

    async def main() -> None:
        fixture = Fixture(config, files)
        fixture.it.remember(before, found=(found,))
        task = asyncio.create_task(fixture.start())
        await eventually(
            lambda: fixture.log.lines_of("discovery failed, endpoints stay as they were")
        )
        assert not fixture.log.lines_of("no endpoint found yet, trying again")
        assert not task.done()
        assert fixture.told.lists == []
        ns.faults.clear()
        fixture.it.refresh()
        await eventually(task.done)
        await task
        fixture.it.refresh()  # one of the answers may have been on its way before
        await eventually(lambda: fixture.told.names == ["n1.test:2379", "n2.test:2379"])
        assert fixture.it.view.results["success"] > 7
        assert (fixture.it.view.last_success_at or 0) > 1.0
        await fixture.it.close()

    asyncio.run(main())


def test_without_a_tls_check_none_is_waited_for_after_an_upgrade(
    config: Config, files: Files, ns: NameServer
) -> None:
    """Endpoints that speak TLS have nothing to pass, and none of them is ever due."""
    ns.set(SSL, "SRV", "0 0 2379 n1.test.")

    async def main() -> None:
        async with started(config, files) as before:
            (found,) = before.told.lists
            assert all(each.tls and each.srv for each in found if SSL in each.owners)
            after = Fixture(config, files)
            after.it.remember(before.it.view, found=found, tls_check=before.it.tls_check)
            async with asyncio.timeout(20.0):
                await after.start()
            assert after.it.view.next_refresh_s
            await after.it.close()

    asyncio.run(main())


def test_after_a_crash_without_endpoints_they_are_waited_for(
    config: Config, files: Files, ns: NameServer
) -> None:
    """DNS had denied everything before, and that is no reason to end."""
    ns.faults[""] = Fault.NXDOMAIN

    async def main() -> None:
        fixture = Fixture(config, files)
        fixture.it.remember(DiscoveryView())
        task = asyncio.create_task(fixture.start())
        await eventually(lambda: fixture.log.lines_of("no endpoint found yet, trying again"))
        assert not fixture.log.lines_of("discovery failed, endpoints stay as they were")
        ns.faults.clear()
        fixture.it.refresh()
        await task
        fixture.it.refresh()  # one of the answers may have been on its way before
        await eventually(lambda: fixture.told.names == ["n1.test:2379", "n2.test:2379"])
        await fixture.it.close()

    asyncio.run(main())


@pytest.mark.parametrize("fault", [Fault.SERVFAIL, Fault.NXDOMAIN])
def test_after_an_upgrade_a_failing_dns_brings_no_other_endpoints(
    config: Config, files: Files, ns: NameServer, fault: Fault
) -> None:
    """Neither the fallback nor a part of what was in use takes the place of the whole."""
    fallback = StaticTarget(HostPort("127.0.0.9", 2379))
    config = replace(config, endpoints=(fallback,), endpoints_given=True)
    names = ["n1.test:2379", "n2.test:2379"]

    async def go_on(before: Fixture) -> None:
        after = Fixture(config, files)
        after.it.remember(before.it.view, found=before.told.lists[-1])
        await after.start()
        await eventually(lambda: after.it.view.last_error)
        assert after.told.lists == [before.told.lists[-1]]
        await after.it.close()

    async def main() -> None:
        before = Fixture(config, files)
        await before.start()
        await eventually(lambda: before.told.names == names)  # one may come late on a busy machine
        await before.it.close()
        for faulty in ("", "n2.test"):
            ns.faults.clear()
            ns.faults[faulty] = fault
            await go_on(before)

    asyncio.run(main())


def test_who_records_the_endpoints_records_the_check_that_they_have_passed(
    config: Config, files: Files
) -> None:
    """Those that are found without one have not passed that of the image before us."""

    async def main() -> None:
        before, found = "test system off", Discovered("n9.test:1", "n9.test", 1, ("127.0.0.9",))
        after = Fixture(config, files)
        after.it.remember(DiscoveryView(), found=(found,), tls_check=before)
        assert after.it.tls_check == before
        await after.start()
        assert after.told.names == ["n1.test:2379", "n2.test:2379"]
        assert set(after.checks) == {describe_tls_check(config)} == {""}
        await after.it.close()

    asyncio.run(main())


def turns_of(loop: asyncio.AbstractEventLoop) -> Callable[[], int]:
    """How often the loop came to its timers since; a task that never waits keeps it from them."""
    turns = 0

    def turn() -> None:
        nonlocal turns
        turns += 1
        loop.call_later(0.01, turn)

    turn()
    return lambda: turns


@pytest.mark.timeout(20)
def test_a_fallback_that_is_not_used_is_not_waited_for(
    config: Config, files: Files, ns: NameServer
) -> None:
    """Its name was asked while SRV failed; when that answer expires, nothing is asked for it."""
    fallback = StaticTarget(HostPort("n3.test", 2379))
    config = replace(config, endpoints=(fallback,), endpoints_given=True)
    for name, kind, records in (
        (PLAIN, "SRV", ("0 0 2379 n1.test.", "0 0 2379 n2.test.")),
        ("n1.test", "A", ("127.0.0.1",)),
        ("n2.test", "A", ("127.0.0.2",)),
    ):
        ns.set(name, kind, *records, ttl=300)
    ns.set("n3.test", "A", "127.0.0.3", ttl=0)
    ns.negative_ttl = 300
    ns.faults[PLAIN] = Fault.SERVFAIL

    async def main() -> None:
        fixture = Fixture(config, files)
        await fixture.start()
        assert fixture.told.names == ["n3.test:2379"]
        ns.faults.clear()
        fixture.it.refresh()
        await eventually(lambda: fixture.told.names == ["n1.test:2379", "n2.test:2379"])
        turns = turns_of(asyncio.get_running_loop())
        await eventually(lambda: turns() > 60)
        await fixture.it.close()

    asyncio.run(main())


def test_what_was_wrong_with_a_fallback_is_over_when_it_is_used_no_longer(
    config: Config, files: Files, ns: NameServer
) -> None:
    """Nobody asks for it again, so nobody would hear that it is answered."""
    fallback = StaticTarget(HostPort("n3.test", 2379))
    config = replace(config, endpoints=(fallback,), endpoints_given=True)
    ns.set(PLAIN, "SRV")
    ns.set("n3.test", "A", "127.0.0.3", ttl=0)

    async def main() -> None:
        async with started(config, files) as f:
            assert f.told.names == ["n3.test:2379"]
            ns.faults["n3.test"] = Fault.SERVFAIL
            await eventually(lambda: "n3.test" in str(f.it.view.last_error))
            ns.set(PLAIN, "SRV", "0 0 2379 n1.test.")
            f.it.refresh()
            await eventually(lambda: f.told.names == ["n1.test:2379"])
            assert f.it.view.last_error is None

    asyncio.run(main())


def test_a_start_that_failed_may_be_tried_again(
    config: Config, files: Files, ns: NameServer
) -> None:
    """The second try asks DNS anew."""
    ns.faults[""] = Fault.NXDOMAIN

    async def main() -> None:
        fixture = Fixture(config, files)
        with pytest.raises(NoEndpointsError):
            await fixture.start()
        ns.faults.clear()
        await fixture.start()
        assert fixture.told.names == ["n1.test:2379", "n2.test:2379"]
        await fixture.it.close()

    asyncio.run(main())


@pytest.mark.parametrize("fault", [Fault.SERVFAIL, Fault.REFUSED, None])
def test_a_dead_dns_at_start_is_waited_for(
    config: Config, files: Files, ns: NameServer, fault: Fault | None
) -> None:
    """While DNS fails or is not there, start waits; when DNS is back, it goes on by itself."""
    if fault:
        ns.faults[""] = fault
    else:
        ns.stop()

    async def main() -> None:
        fixture = Fixture(config, files)
        task = asyncio.create_task(fixture.start())
        await eventually(lambda: fixture.log.lines_of("no endpoint found yet, trying again"))
        assert not task.done()
        assert fixture.it.view.last_error
        if fault:
            ns.faults.clear()
        else:
            ns.start()
        await eventually(task.done)
        await task
        # Which questions were asked before the faults were cleared is a matter of time.
        await eventually(lambda: fixture.told.names == ["n1.test:2379", "n2.test:2379"])
        await fixture.it.close()

    asyncio.run(main())


def test_many_problems_are_told_in_one_line_that_can_be_read(
    config: Config, files: Files, ns: NameServer
) -> None:
    """A few errors are spelled out and the others counted; each refusal has a line of its own."""
    ports = [free_port() for _ in range(8)]
    ns.set(PLAIN, "SRV", *(f"0 0 0 n{n}.test." for n in range(8)), "0 0 2379 n1.test.")

    async def main() -> None:
        async with started(config, files) as gateway:
            error = gateway.it.view.last_error or ""
            assert error.count("port 0") == 5
            assert error.endswith("; and 3 more")
            (line,) = gateway.log.lines_of("discovery incomplete")
            assert line["error"] == error

    asyncio.run(main())
    listen = tuple(HostPort("127.0.0.1", port) for port in ports)
    records = (f"0 0 {port} n1.test." for port in ports)
    ns.set(PLAIN, "SRV", *records, "0 0 2379 n1.test.")

    async def guarded() -> None:
        async with started(replace(config, listen_addr=listen), files) as gateway:
            assert (gateway.it.view.last_error or "").endswith("; and 3 more")
            assert len(gateway.log.lines_of("endpoint left out")) == 8
            assert not gateway.log.lines_of("discovery incomplete")

    asyncio.run(guarded())


def test_start_can_be_cancelled(config: Config, files: Files, ns: NameServer) -> None:
    """A stop while DNS is dead ends the wait and leaves no task behind."""
    ns.faults[""] = Fault.SERVFAIL

    async def main() -> None:
        fixture = Fixture(config, files)
        task = asyncio.create_task(fixture.start())
        await eventually(lambda: fixture.log.messages)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_explicit_endpoints_are_the_fallback(config: Config, files: Files, ns: NameServer) -> None:
    """--endpoints given explicitly serve while SRV yields nothing, loudly, and no longer."""
    ns.set(PLAIN, "SRV")

    async def main() -> None:
        async with started(static(config, "127.0.0.1:1"), files) as f:
            assert f.told.names == ["127.0.0.1:1"]
            assert f.log.lines_of("using --endpoints instead of SRV")
            ns.set(PLAIN, "SRV", "0 0 2379 n1.test.")
            f.it.refresh()
            await eventually(lambda: f.told.names == ["n1.test:2379"])

    asyncio.run(main())


def test_a_changed_zone_is_followed(config: Config, files: Files, ns: NameServer) -> None:
    """A record that appears, changes or goes is followed after its TTL, and logged."""
    ns.set(PLAIN, "SRV", "0 0 2379 n1.test.", "0 0 2379 n2.test.", ttl=0)

    async def main() -> None:
        async with started(config, files) as f:
            ns.set(PLAIN, "SRV", "0 7 2379 n2.test.", "0 0 2379 n3.test.", ttl=0)
            await eventually(lambda: f.told.names == ["n2.test:2379", "n3.test:2379"])
            (line,) = f.log.lines_of("endpoints changed")
            assert line["added"] == ("n3.test:2379",)
            assert line["removed"] == ("n1.test:2379",)
            assert line["changed"] == ("n2.test:2379",)

    asyncio.run(main())


def test_nothing_is_told_unless_something_changed(
    config: Config, files: Files, ns: NameServer
) -> None:
    """Refreshes that find the same, in whatever order, are not told."""
    ns.set(PLAIN, "SRV", "0 0 2379 n1.test.", "0 0 2379 n2.test.", ttl=0)

    async def main() -> None:
        async with started(config, files) as f:
            asked = ns.asked(PLAIN, "SRV")
            ns.set(PLAIN, "SRV", "0 0 2379 n2.test.", "0 0 2379 n1.test.", ttl=0)
            await eventually(lambda: ns.asked(PLAIN, "SRV") > asked + 2)
            assert len(f.told.lists) == 1

    asyncio.run(main())


def test_only_what_is_due_is_asked(config: Config, files: Files, ns: NameServer) -> None:
    """A short TTL of the SRV records does not ask for the targets' addresses again."""
    ns.set(PLAIN, "SRV", "0 0 2379 n1.test.", ttl=0)
    ns.set("n1.test", "A", "127.0.0.1", ttl=600)
    ns.set("n1.test", "AAAA", "::1", ttl=600)

    async def main() -> None:
        async with started(config, files):
            await eventually(lambda: ns.asked(PLAIN, "SRV") > 3)
            assert ns.asked("n1.test", "A") == 1

    asyncio.run(main())


@pytest.mark.parametrize("fault", [Fault.SERVFAIL, Fault.REFUSED, Fault.NXDOMAIN, Fault.EMPTY])
def test_the_last_good_answer_is_kept(
    config: Config, files: Files, ns: NameServer, fault: Fault
) -> None:
    """When DNS fails after start, or suddenly denies everything, the endpoints stay in use."""
    # Nothing is due by itself: the reloads are all the resolutions there are until one fails.
    ns.negative_ttl = 600
    ns.set(PLAIN, "SRV", "0 0 2379 n1.test.", "0 0 2379 n2.test.", ttl=600)
    for number in (1, 2):
        ns.set(f"n{number}.test", "A", f"127.0.0.{number}", ttl=600)

    async def main() -> None:
        async with started(config, files) as f:
            # On a busy machine the first resolution may have to go on without one of them.
            await eventually(lambda: f.told.names == ["n1.test:2379", "n2.test:2379"])
            told = len(f.told.lists)
            ns.faults[""] = fault
            await f.it.reload(config)
            assert f.told.names == ["n1.test:2379", "n2.test:2379"]
            assert len(f.told.lists) == told
            assert f.it.view.last_error
            assert f.it.view.results["failure"] >= 1
            ns.faults.clear()
            await f.it.reload(config)
            assert f.it.view.last_error is None

    asyncio.run(main())


@pytest.mark.parametrize("failing", [PLAIN, "n2.test"])
def test_one_name_that_fails_is_no_success_however_often_the_others_are_asked(
    config: Config, files: Files, ns: NameServer, failing: str
) -> None:
    """It is asked less and less often, and counts in each resolution until it is answered."""
    ns.set(PLAIN, "SRV", "0 0 2379 n1.test.", "0 0 2379 n2.test.", ttl=0)
    for number in (1, 2):
        ns.set(f"n{number}.test", "A", f"127.0.0.{number}", ttl=0)

    async def main() -> None:
        async with started(config, files) as f:
            await eventually(lambda: f.it.view.last_success_at)
            ns.faults[failing] = Fault.SERVFAIL
            await eventually(lambda: f.it.view.last_error)
            at, successes = f.it.view.last_success_at, f.it.view.results["success"]
            asked = ns.asked("n1.test", "A")
            await eventually(lambda: ns.asked("n1.test", "A") > asked + 5)
            assert f.it.view.last_success_at == at
            assert f.it.view.results["success"] == successes
            ns.faults.clear()
            f.it.refresh()
            await eventually(lambda: f.it.view.last_success_at != at)

    asyncio.run(main())


@pytest.mark.parametrize("fault", [Fault.SERVFAIL, Fault.NXDOMAIN])
def test_records_that_lead_nowhere_take_no_endpoint_away(
    config: Config, files: Files, ns: NameServer, fault: Fault
) -> None:
    """All targets are new, and none has an address: the endpoints before stay in use, through
    reloads too, until a target is found, or until the no is confirmed."""
    config = replace(config, removal_grace_s=1.0 if fault is Fault.NXDOMAIN else 0.1)
    ns.set(PLAIN, "SRV", "0 0 2379 n1.test.", "0 0 2379 n2.test.", ttl=0)
    ns.set("n3.test", "A", "127.0.0.3", ttl=0)

    async def main() -> None:
        async with started(config, files) as f:
            ns.faults["n3.test"] = fault
            ns.set(PLAIN, "SRV", "0 0 2379 n3.test.", ttl=0)
            await eventually(lambda: "lead nowhere" in (f.it.view.last_error or ""))
            await f.it.reload(config)
            assert f.told.names == ["n1.test:2379", "n2.test:2379"]
            assert len(f.told.lists) == 1
            assert f.it.view.results["failure"]
            if fault is Fault.NXDOMAIN:
                await eventually(lambda: f.told.lists[-1] == ())
            else:
                asked = ns.asked("n3.test", "A")
                await eventually(lambda: ns.asked("n3.test", "A") > asked + 5)
                assert len(f.told.lists) == 1, "a failure is never confirmed"
            ns.faults.clear()
            f.it.refresh()
            await eventually(lambda: f.told.names == ["n3.test:2379"])
            assert f.it.view.last_error is None

    asyncio.run(main())


def test_the_other_half_of_an_answer_is_asked_for_again_soon(
    config: Config, files: Files, ns: NameServer
) -> None:
    """This host has no way to the addresses that were answered: it does not wait for the TTL."""
    ns.set("half.test", "A", "255.255.255.255", ttl=300)
    ns.set("half.test", "AAAA", "::1", ttl=300)
    ns.faults["half.test", "AAAA"] = Fault.SERVFAIL

    async def main() -> None:
        async with started(static(replace(config, discovery_srv=""), "half.test:1"), files) as f:
            assert [each.addresses for each in f.told.lists[-1]] == [("255.255.255.255",)]
            ns.faults.clear()
            await eventually(lambda: "::1" in f.told.lists[-1][0].addresses)

    asyncio.run(main())


def test_a_confirmed_no_is_believed(config: Config, files: Files, ns: NameServer) -> None:
    """A no that lasts for --removal-grace empties the list."""

    async def main() -> None:
        async with started(replace(config, removal_grace_s=0.3), files) as f:
            ns.set(PLAIN, "SRV")
            f.it.refresh()
            await eventually(lambda: f.told.lists[-1] == ())
            ns.set(PLAIN, "SRV", "0 0 2379 n3.test.", ttl=0)
            await eventually(lambda: f.told.names == ["n3.test:2379"])

    asyncio.run(main())


def test_one_bad_target_harms_no_other(config: Config, files: Files, ns: NameServer) -> None:
    """A target that does not resolve is left out and retried; the others are used at once."""
    ns.set(PLAIN, "SRV", "0 0 2379 n1.test.", "0 0 2379 late.test.")

    async def main() -> None:
        async with started(config, files) as f:
            assert f.told.names == ["n1.test:2379"]
            assert "late.test" in (f.it.view.last_error or "")
            ns.set("late.test", "A", "127.0.0.9")
            await eventually(lambda: f.told.names == ["late.test:2379", "n1.test:2379"], 15)

    asyncio.run(main())


def test_while_nothing_is_active_dns_is_asked_again_and_again(
    config: Config, files: Files, ns: NameServer
) -> None:
    """At once and then for ever, whatever the TTL; not if refreshing is off."""
    ns.set(PLAIN, "SRV", "0 0 2379 n1.test.", ttl=600)

    async def main() -> None:
        async with started(config, files) as f:
            loop, asked = asyncio.get_running_loop(), ns.asked(PLAIN, "SRV")
            began_at = loop.time()
            f.it.set_any_active(False)
            await eventually(lambda: ns.asked(PLAIN, "SRV") >= asked + 4)
            assert loop.time() - began_at >= 0.3, "not more often than every tenth of a second"
            ns.set(PLAIN, "SRV", "0 0 2379 n3.test.", ttl=600)
            await eventually(lambda: f.told.names == ["n3.test:2379"])
            await f.it.reload(replace(config, discovery_refresh="off"))
            assert f.it.view.next_refresh_s is None

    asyncio.run(main())


def test_a_service_that_comes_back_is_found_long_before_its_negative_ttl(
    config: Config, files: Files, ns: NameServer
) -> None:
    """After a confirmed NXDOMAIN there is no endpoint, so none is active either."""
    ns.negative_ttl = 300
    ns.set(PLAIN, "SRV", "0 0 2379 n1.test.", ttl=0)

    async def main() -> None:
        async with started(replace(config, removal_grace_s=0.3), files) as f:
            ns.set(PLAIN, "SRV")
            await eventually(lambda: f.told.lists[-1] == ())
            assert (f.it.view.next_refresh_s or 0) > 250
            f.it.set_any_active(False)
            ns.set(PLAIN, "SRV", "0 0 2379 n3.test.", ttl=300)
            await eventually(lambda: f.told.names == ["n3.test:2379"])

    asyncio.run(main())


def test_reload_follows_new_targets(config: Config, files: Files, ns: NameServer) -> None:
    """A reload resolves the new targets at once and tells them."""

    async def main() -> None:
        async with started(config, files) as f:
            await f.it.reload(static(replace(config, discovery_srv=""), "n3.test:1"))
            assert f.told.names == ["n3.test:1"]
            assert f.it.view.srv is None

    asyncio.run(main())


@pytest.mark.parametrize(
    ("target", "reason"),
    [("gone.test:1", "host gone.test: NXDOMAIN"), ("localhost:23790", "own listen address")],
)
def test_a_reload_that_finds_nothing_changes_nothing(
    config: Config, files: Files, ns: NameServer, target: str, reason: str
) -> None:
    """New targets without endpoints, or a loop, fail the reload; the old ones are followed on."""

    async def main() -> None:
        async with started(config, files) as f:
            with pytest.raises(ReloadFailedError, match=reason):
                await f.it.reload(static(replace(config, discovery_srv=""), target))
            assert f.it.view.srv == "test"
            ns.set(PLAIN, "SRV", "0 0 2379 n3.test.")
            f.it.refresh()
            await eventually(lambda: f.told.names == ["n3.test:2379"])

    asyncio.run(main())


def test_a_bug_ends_neither_following_nor_waiting(
    config: Config, files: Files, ns: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unexpected error is logged, fails the reload that waits, and following goes on."""
    monkeypatch.setattr(loop_module, "AFTER_ERROR_S", 0.01)

    async def main() -> None:
        async with started(config, files) as f:
            with monkeypatch.context() as patch:
                patch.setattr("supervisor.core.discovery.endpoints.find_srv", lambda *_: 1 // 0)
                with pytest.raises(ReloadFailedError, match="division"):
                    await f.it.reload(config)
                await eventually(lambda: f.log.lines_of("discovery failed"))
            await f.it.reload(config)

    asyncio.run(main())


def test_two_hundred_reloads_are_coalesced(config: Config, files: Files, ns: NameServer) -> None:
    """200 reloads at once ask DNS twice at most, and all of them are answered."""

    async def main() -> None:
        async with started(config, files) as f:
            asked = ns.asked(PLAIN, "SRV")
            await asyncio.gather(*(f.it.reload(config) for _ in range(200)))
            assert ns.asked(PLAIN, "SRV") - asked <= 2

    asyncio.run(main())


def test_a_reload_is_applied_before_its_endpoints_are_known(
    config: Config, files: Files, ns: NameServer
) -> None:
    """The rest of it counts for them, and for those that leave; one that fails is not applied."""

    async def main() -> None:
        async with started(config, files) as f:
            applied: list[int] = []
            taken = lambda: applied.append(len(f.told.lists))  # noqa: E731
            with pytest.raises(ReloadFailedError):
                await f.it.reload(static(replace(config, discovery_srv=""), "no.test:1"), taken)
            assert applied == []
            before = len(f.told.lists)
            await f.it.reload(static(replace(config, discovery_srv=""), "n3.test:1"), taken)
            assert applied == [before]
            assert f.told.names == ["n3.test:1"]

    asyncio.run(main())


def test_a_reload_outlives_a_start_that_fails(config: Config, files: Files, ns: NameServer) -> None:
    """It came while the start looked for names that can never be used; the next attempt does it."""
    own = static(replace(config, discovery_srv=""), "n1.test:23790")
    own = replace(own, listen_addr=(HostPort("127.0.0.1", 23790),))
    good = static(replace(config, discovery_srv=""), "n3.test:1")

    async def main() -> None:
        fixture = Fixture(own, files)
        ns.late_s = 0.5
        first = asyncio.create_task(fixture.start())
        await eventually(lambda: ns.asked("n1.test", "A"))
        await eventually(lambda: fixture.it.is_searching)
        reload = asyncio.create_task(fixture.it.reload(good))
        with pytest.raises(BadTargetError):
            await first
        await fixture.start()
        await reload
        assert fixture.told.names == ["n3.test:1"]
        await fixture.it.close()

    asyncio.run(main())


def test_close_ends_a_waiting_reload(config: Config, files: Files, ns: NameServer) -> None:
    """Whoever waits for a reload when the gateway stops is not left waiting."""

    async def main() -> None:
        async with started(config, files) as f:
            ns.faults[""] = Fault.TIMEOUT
            first = asyncio.create_task(f.it.reload(config))
            asked = len(ns.queries)
            await eventually(lambda: len(ns.queries) > asked)
            second = asyncio.create_task(f.it.reload(config))
            await asyncio.sleep(0)
        for waiting in (first, second):
            with pytest.raises(asyncio.CancelledError):
                await waiting

    asyncio.run(main())


def test_a_static_loop_is_wrong_usage(config: Config, files: Files) -> None:
    """A static endpoint that is our own listen address ends the start, wildcards counted."""
    everywhere = replace(config, discovery_srv="", listen_addr=(HostPort("", 23790),))

    async def main() -> None:
        for target in ("127.0.0.1:23790", "localhost:23790", "127.0.0.5:23790"):
            fixture = Fixture(static(everywhere, target), files)
            with pytest.raises(BadTargetError, match=f"--endpoints {target}.*own listen address"):
                await fixture.start()

    asyncio.run(main())


def test_a_discovered_loop_is_left_out(config: Config, files: Files, ns: NameServer) -> None:
    """An endpoint found by SRV that is ourselves is left out, logged and shown."""
    ns.set(PLAIN, "SRV", "0 0 23790 n1.test.", "0 0 2379 n2.test.")

    async def main() -> None:
        async with started(config, files) as f:
            assert f.told.names == ["n2.test:2379"]
            assert list(f.it.view.refused) == ["n1.test:23790"]
            (line,) = f.log.lines_of("endpoint left out")
            assert line["endpoint"] == "n1.test:23790"

    asyncio.run(main())


def test_a_changed_resolv_conf_is_noticed(config: Config, ns: NameServer, files: Files) -> None:
    """resolv.conf is read again when it changed, hosts at every question."""
    pinned = static(replace(config, discovery_srv=""), "pinned:1")

    async def main() -> None:
        fixture = Fixture(pinned, files)
        with pytest.raises(NoEndpointsError):
            await fixture.start()
        write(files.resolv_conf, "search test\noptions attempts:2\n")
        ns.set("pinned.test", "A", "127.0.0.8")
        async with started(pinned, files) as f:
            assert f.told.lists[-1][0].addresses == ("127.0.0.8",)
            write(files.hosts, "127.0.0.7 pinned\n")
            f.it.refresh()
            await eventually(lambda: f.told.lists[-1][0].addresses == ("127.0.0.7",))
            write(files.hosts, "")
            remove(files.resolv_conf)
            f.it.refresh()
            await eventually(lambda: f.it.view.last_error)

    asyncio.run(main())


def serve_in_two_search_domains(ns: NameServer, files: Files) -> None:
    """The name ``etcd`` is there twice, and the first of the two counts."""
    ns.set("etcd.a.test", "A", "127.0.0.1")
    ns.set("etcd.b.test", "A", "127.0.0.2")
    write(files.resolv_conf, "search a.test b.test\noptions attempts:1 timeout:30\n")


def test_a_changed_resolv_conf_brings_no_other_name_of_the_search_list(
    config: Config, ns: NameServer, files: Files
) -> None:
    """It is written anew when networks change, which is when a search domain may fail."""
    serve_in_two_search_domains(ns, files)

    async def main() -> None:
        async with started(static(replace(config, discovery_srv=""), "etcd:1"), files) as f:
            assert f.told.lists[-1][0].addresses == ("127.0.0.1",)
            ns.faults["etcd.a.test"] = Fault.SERVFAIL
            write(files.resolv_conf, "search a.test b.test\noptions attempts:1 timeout:30 edns0\n")
            await f.it.reload(f.config)
            assert f.told.lists[-1][0].addresses == ("127.0.0.1",)
            assert "etcd.a.test: SERVFAIL" in (f.it.view.last_error or "")

    asyncio.run(main())


def test_a_host_that_is_no_target_any_more_is_forgotten(
    config: Config, ns: NameServer, files: Files
) -> None:
    """Not so while a reload fails, for the host is a target then as before."""
    serve_in_two_search_domains(ns, files)
    ns.set("other.b.test", "A", "127.0.0.3")

    async def main() -> None:
        async with started(static(replace(config, discovery_srv=""), "etcd:1"), files) as f:
            with pytest.raises(ReloadFailedError):
                await f.it.reload(static(f.config, "absent:1"))
            assert f.it.searched == {"etcd": "etcd.a.test"}
            await f.it.reload(static(f.config, "other:1"))
            assert f.it.searched == {"other": "other.b.test"}

    asyncio.run(main())


@pytest.mark.parametrize("fault", [Fault.SERVFAIL, Fault.NXDOMAIN])
def test_the_next_master_takes_no_other_name_of_the_search_list(
    config: Config, ns: NameServer, files: Files, fault: Fault
) -> None:
    """An upgrade while the domain in use fails must not send clients to another service."""
    serve_in_two_search_domains(ns, files)
    named = static(replace(config, discovery_srv="", removal_grace_s=1000.0), "etcd:1")

    async def main() -> None:
        async with started(named, files) as before:
            assert before.it.searched == {"etcd": "etcd.a.test"}
            ns.faults["etcd.a.test"] = fault
            after = Fixture(named, files)
            after.it.remember(
                before.it.view, found=before.told.lists[-1], searched=before.it.searched
            )
            await after.start()
            await eventually(
                lambda: after.it.view.last_error
            )  # a start goes on before a late answer
            assert after.told.lists[-1][0].addresses == ("127.0.0.1",)
            await after.it.close()

    asyncio.run(main())


def test_a_name_that_is_denied_gives_its_place_to_a_later_one_when_the_no_is_confirmed(
    config: Config, ns: NameServer, files: Files
) -> None:
    """A zone that was loaded empty must not send clients to what a wildcard has instead."""
    serve_in_two_search_domains(ns, files)
    named = static(replace(config, discovery_srv="", removal_grace_s=1000.0), "etcd:1")

    async def main() -> None:
        async with started(named, files) as f:
            ns.set("etcd.a.test", "A")
            await f.it.reload(f.config)
            assert f.told.lists[-1][0].addresses == ("127.0.0.1",)
            assert "NXDOMAIN (not yet trusted)" in (f.it.view.last_error or "")
            await f.it.reload(replace(f.config, removal_grace_s=0.001))
            assert f.told.lists[-1][0].addresses == ("127.0.0.2",)
            ns.set("etcd.a.test", "A", "127.0.0.1")
            await f.it.reload(f.config)
            assert f.told.lists[-1][0].addresses == ("127.0.0.1",)

    asyncio.run(main())


class TestTlsGate:
    """With the TLS check."""

    @pytest.fixture
    def authority(self, tmp_path: Path) -> Authority:
        return Authority(tmp_path)

    @pytest.fixture
    def secure(self, config: Config, authority: Authority) -> Config:
        return replace(config, insecure_discovery=False, trusted_ca_file=authority.file)

    def test_only_verified_endpoints_are_used(
        self, secure: Config, files: Files, ns: NameServer, authority: Authority
    ) -> None:
        """Good ones are used, wrong ones left out, each with its reason."""
        with (
            Server(authority.context("test")) as good,
            Server(authority.context("wrong.test")) as wrong,
            Server(hang_up) as plain,
        ):
            records = (f"0 0 {s.port} n1.test." for s in (good, wrong, plain))
            ns.set(SSL, "SRV", *records)
            ns.set(PLAIN, "SRV")

            async def main() -> None:
                async with started(secure, files) as f:
                    assert f.told.names == [f"n1.test:{good.port}"]
                    assert "Hostname mismatch" in f.it.view.refused[f"n1.test:{wrong.port}"]
                    assert "does not speak TLS" in f.it.view.refused[f"n1.test:{plain.port}"]
                    assert f.log.messages[:2] == [
                        "discovered cluster from SRV",
                        "validating discovered SRV endpoints",
                    ]
                    assert f.log.lines_of("using validated discovered SRV endpoints")

            asyncio.run(main())

    def test_one_address_that_is_refused_takes_no_endpoint_away(
        self, secure: Config, files: Files, ns: NameServer, authority: Authority
    ) -> None:
        """The endpoint is used by its other address, and is not told as left out."""
        ns.set("n1.test", "A", "127.0.0.1", "127.0.0.2")
        with (
            Server(authority.context("test")) as good,
            Server(hang_up, good.port, host="127.0.0.2"),
        ):
            ns.set(PLAIN, "SRV", f"0 0 {good.port} n1.test.")

            async def main() -> None:
                async with started(secure, files) as f:
                    await eventually(lambda: f.log.lines_of("address left out"))
                    assert [each.addresses for each in f.told.lists[-1]] == [("127.0.0.1",)]
                    assert f.it.view.refused == {}
                    assert "127.0.0.2: does not speak TLS" in str(f.it.view.last_error)
                    assert not f.log.lines_of("endpoint left out")

            asyncio.run(main())

    def test_all_refused_ends_the_start(
        self, secure: Config, files: Files, ns: NameServer, authority: Authority
    ) -> None:
        """If every endpoint fails the check there is nothing to wait for, and no fallback."""
        with Server(hang_up) as plain:
            ns.set(PLAIN, "SRV", f"0 0 {plain.port} n1.test.")

            async def main() -> None:
                fixture = Fixture(secure, files)
                with pytest.raises(NoEndpointsError, match=r"not speak TLS.*certificate for test "):
                    await fixture.start()

            asyncio.run(main())

    def test_one_that_is_down_is_retried(
        self, secure: Config, files: Files, ns: NameServer, authority: Authority
    ) -> None:
        """An endpoint that was down at start is verified and used once it is up."""
        port = free_port()
        ns.set(PLAIN, "SRV", f"0 0 {port} n1.test.")

        async def main() -> None:
            fixture = Fixture(secure, files)
            task = asyncio.create_task(fixture.start())
            await eventually(lambda: fixture.it.view.refused)
            assert not task.done()
            with Server(authority.context("test"), port):
                await eventually(task.done)
                await task
                assert fixture.told.names == [f"n1.test:{port}"]
            await fixture.it.reload(secure)
            assert fixture.told.names == [f"n1.test:{port}"], (
                "it passed once; health knows the rest"
            )
            await fixture.it.close()

        asyncio.run(main())

    def test_a_member_that_has_a_name_is_checked_under_it_alone(
        self, secure: Config, files: Files, ns: NameServer, authority: Authority
    ) -> None:
        """Its client URL is the same address: a second handshake would warn of one thing twice."""
        with Server(authority.context("test")) as good:
            ns.set(SSL, "SRV", f"0 0 {good.port} n1.test.")
            ns.set("n1.test", "A", "127.0.0.1")
            ns.set(PLAIN, "SRV")
            member = MemberTarget("m0", HostPort("127.0.0.1", good.port), tls=True)

            async def main() -> None:
                shared, told, log = SharedTls(Logbook()), Told(), Logbook()
                config = replace(secure, member_sync_s=3600.0)
                it = DiscoveryLoop(
                    config, log, told, files=files, draw=lambda _: 0, shared_tls=shared
                )
                it.remember(DiscoveryView(), AdoptedList(cluster_id=1, targets=(member,)))
                try:
                    await it.start(config.listen_addr)
                    assert told.names == [f"n1.test:{good.port}"]
                    ends = shared.certificates.ends.export()
                    assert [each.endpoint for each in ends] == told.names
                finally:
                    await it.close()

            asyncio.run(main())

    @pytest.mark.timeout(20)
    def test_one_that_is_gone_is_not_waited_for(
        self, secure: Config, files: Files, ns: NameServer, authority: Authority
    ) -> None:
        """An endpoint that never passed is not checked any more once DNS has no endpoint at all."""
        with Server(authority.context("test")) as good:
            down = free_port()
            ns.set(PLAIN, "SRV", f"0 0 {good.port} n1.test.", f"0 0 {down} n2.test.", ttl=0)

            async def main() -> None:
                async with started(replace(secure, removal_grace_s=0.1), files) as f:
                    await eventually(lambda: f.it.view.refused)
                    ns.negative_ttl = 300
                    ns.set(PLAIN, "SRV")
                    await eventually(lambda: f.told.lists[-1] == ())
                    turns = turns_of(asyncio.get_running_loop())
                    await eventually(lambda: turns() > 60)

            asyncio.run(main())

    def test_a_slow_check_holds_up_nobody(
        self,
        secure: Config,
        files: Files,
        ns: NameServer,
        authority: Authority,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Endpoints that passed are used while others still keep their check waiting."""
        monkeypatch.setattr("supervisor.discovery.parallel.EARLY_S", 0.1)
        with Server(authority.context("test")) as good, Server(silent) as slow:
            ns.set(PLAIN, "SRV", f"0 0 {good.port} n1.test.", f"0 0 {slow.port} n2.test.")

            async def main() -> None:
                async with started(replace(secure, health_timeout_s=3600.0), files) as f:
                    assert f.told.names == [f"n1.test:{good.port}"]

            asyncio.run(main())

    def test_a_refresh_checks_again(
        self, secure: Config, files: Files, ns: NameServer, authority: Authority
    ) -> None:
        """A certificate that turned bad is found at the next refresh."""
        server = Server(authority.context("test"))
        ns.set(PLAIN, "SRV", f"0 0 {server.port} n1.test.", "0 0 1 n2.test.")

        async def main() -> None:
            async with started(secure, files) as f:
                assert f.told.names == [f"n1.test:{server.port}"]
                server.stop()
                with Server(authority.context("wrong.test"), server.port):
                    f.it.refresh()
                    await eventually(lambda: f.told.lists[-1] == ())

        asyncio.run(main())

    def test_a_missing_ca_file_is_told(self, secure: Config, files: Files) -> None:
        """A CA file that cannot be read is an error at start and at reload."""
        missing = replace(secure, trusted_ca_file="/nonexistent/ca.pem")

        async def main() -> None:
            with pytest.raises(BadTargetError, match="/nonexistent/ca"):
                await Fixture(missing, files).start()
            async with started(replace(secure, insecure_discovery=True), files) as f:
                with pytest.raises(ReloadFailedError, match="/nonexistent/ca"):
                    await f.it.reload(missing)

        asyncio.run(main())

    @pytest.mark.parametrize("way", ["refresh", "reload", "upgrade", "crash"])
    def test_the_only_one_that_fails_its_check_is_not_used(
        self, secure: Config, files: Files, ns: NameServer, authority: Authority, way: str
    ) -> None:
        """By whatever way the check comes; at a fresh start the same ends the start."""
        server = Server(authority.context("test"))
        ns.set(PLAIN, "SRV", f"0 0 {server.port} n1.test.")

        async def main() -> None:
            async with started(secure, files) as f:
                server.stop()
                with Server(authority.context("wrong.test"), server.port):
                    if way in ("upgrade", "crash"):
                        after = Fixture(secure, files)
                        after.it.remember(f.it.view, found=f.told.lists[-1], tls_check=None)
                        starting = asyncio.create_task(after.start())
                        await eventually(lambda: after.told.lists == [()])
                        assert after.log.lines_of("endpoint left out")
                        assert "discovery failed, endpoints stay as they were" not in (
                            after.log.messages
                        )
                        starting.cancel()
                        return
                    if way == "refresh":
                        f.it.refresh()
                    else:
                        with pytest.raises(ReloadFailedError, match="Hostname mismatch"):
                            await f.it.reload(secure)
                    await eventually(lambda: f.told.lists[-1] == ())
                    (used,) = f.log.lines_of("using validated discovered SRV endpoints")
                    assert used["endpoints"], "those that are not used any more are no line"

        asyncio.run(main())

    @pytest.mark.parametrize("way", ["reload", "upgrade"])
    def test_one_that_comes_back_with_a_good_certificate_is_used_again(
        self, secure: Config, files: Files, ns: NameServer, authority: Authority, way: str
    ) -> None:
        """After a check that left no endpoint the checks go on by themselves."""
        server = Server(authority.context("test"))
        ns.set(PLAIN, "SRV", f"0 0 {server.port} n1.test.")

        async def main() -> None:
            async with started(secure, files) as before:
                server.stop()
                with Server(authority.context("wrong.test"), server.port):
                    f = before
                    if way == "upgrade":
                        f = Fixture(secure, files)
                        f.it.remember(before.it.view, found=before.told.lists[-1], tls_check=None)
                        starting = asyncio.create_task(f.start())
                    else:
                        with pytest.raises(ReloadFailedError):
                            await f.it.reload(secure)
                    await eventually(lambda: f.told.lists and f.told.lists[-1] == ())
                with Server(authority.context("test"), server.port):
                    await eventually(lambda: f.told.lists[-1] != ())
                if way == "upgrade":
                    await starting
                    await f.it.close()

        asyncio.run(main())

    def test_a_reload_with_a_check_that_nobody_passes_leaves_the_endpoints(
        self, secure: Config, files: Files, ns: NameServer, authority: Authority, tmp_path: Path
    ) -> None:
        """Another CA is another check: what it finds does not count for the check in use."""
        other = Authority(tmp_path, "other")
        with Server(authority.context("test")) as server:
            ns.set(PLAIN, "SRV", f"0 0 {server.port} n1.test.")

            async def main() -> None:
                async with started(secure, files) as f:
                    with pytest.raises(ReloadFailedError, match="certificate"):
                        await f.it.reload(replace(secure, trusted_ca_file=other.file))
                    f.it.refresh()
                    await eventually(lambda: f.it.view.results["success"] > 2)
                    assert len(f.told.lists) == 1

            asyncio.run(main())

    @pytest.mark.parametrize("same_check", [True, False])
    def test_after_an_upgrade_one_that_is_down_stays(
        self,
        secure: Config,
        files: Files,
        ns: NameServer,
        authority: Authority,
        same_check: bool,
    ) -> None:
        """It has passed. After another check than before it stays until one passes this check."""
        port = free_port()
        ns.set(PLAIN, "SRV", f"0 0 {port} n1.test.")
        found = Discovered(
            f"n1.test:{port}", "n1.test", port, ("127.0.0.1",), tls=True, srv=True, owners=(PLAIN,)
        )

        async def main() -> None:
            after = Fixture(secure, files)
            check = after.it.tls_check
            before = check if same_check else "another one"
            after.it.remember(DiscoveryView(), found=(found,), tls_check=before)
            starting = asyncio.create_task(after.start())
            await eventually(lambda: starting.done() or after.it.view.refused)
            assert starting.done() == same_check
            assert after.told.lists == ([(found,)] if same_check else [])
            with Server(authority.context("wrong.test"), port):
                await eventually(lambda: "Hostname" in str(after.it.view.refused))
            assert after.told.lists == ([(found,), ()] if same_check else [])
            assert after.it.tls_check == before, "it is what the endpoints in use have passed"
            with Server(authority.context("test"), port):
                await eventually(lambda: after.told.lists and after.told.lists[-1] == (found,))
            await starting
            assert after.it.tls_check == check
            await after.it.close()

        asyncio.run(main())
