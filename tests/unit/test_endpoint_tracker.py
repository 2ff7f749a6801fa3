"""What a master goes on from, of what a former one held of its endpoints; with real probes."""

from __future__ import annotations

import asyncio
import dataclasses
import time

import pytest

from gateway.core.endpoint import EndpointState
from gateway.core.messages import Report, Snapshot
from supervisor.core.admin.totals import Totals
from supervisor.core.config import Config
from supervisor.core.discovery.endpoints import Discovered
from supervisor.core.roster import Roster
from supervisor.core.roster_member import Removed, Since
from supervisor.core.workers.worker_id import WorkerId
from supervisor.endpoint_tracker import EndpointTracker
from supervisor.system.shared_tls import SharedTls
from tests.backends import Backend, greet
from tests.logbook import Logbook
from tests.support import eventually

QUICK = Config(
    health_interval_s=0.1, health_idle_interval_s=0.1, retry_delay_s=0.2, removal_grace_s=600.0
)
DEAD = "127.0.0.9"


class Stage:
    """One master's tracker, roster and totals."""

    def __init__(self, config: Config = QUICK) -> None:
        self.log = log = Logbook()
        self.sent: list[Snapshot] = []
        self.records = 0
        """How often the record was brought up to date without a snapshot."""
        self.roster = Roster()
        self.totals = Totals()
        shared_tls = SharedTls(log)
        self.certificates = shared_tls.certificates
        self.it = EndpointTracker(
            asyncio.get_running_loop(),
            config,
            log,
            roster=self.roster,
            totals=self.totals,
            send=self.sent.append,
            record=self._record,
            shared_tls=shared_tls,
        )

    def _record(self) -> None:
        self.records += 1

    @property
    def state(self) -> tuple[EndpointState, tuple[str, ...]]:
        (member,) = self.roster.members
        return member.state, member.inactive

    async def until(self, state: EndpointState, inactive: tuple[str, ...] = ()) -> None:
        await eventually(lambda: self.state == (state, inactive))


@pytest.mark.parametrize("told", [True, False], ids=["with its health", "by an older release"])
def test_one_in_its_grace_that_was_inactive_is_used_when_it_is_back(told: bool) -> None:
    """It works again by the time a new master finds it in DNS."""

    async def main() -> None:
        with Backend(greet) as backend:
            gone = Discovered("web:1", "web", backend.port, (DEAD,))
            before = Stage()
            before.it.on_found((gone,))
            await before.until(EndpointState.INACTIVE)
            before.roster.sessions("web:1", 1)
            before.it.on_found(())
            health = before.it.health.export(["web:1"])
            await before.it.close()

            after = Stage()
            after.it.remember((), before.roster.removed, health if told else {})
            (member,) = after.roster.members
            assert member.active is not told
            after.it.on_found((Discovered("web:1", "web", backend.port, ("127.0.0.1",)),))
            await after.until(EndpointState.ACTIVE)
            await after.it.close()

    asyncio.run(main())


def test_an_inactive_address_of_one_in_its_grace_stays_inactive() -> None:
    """It comes back under the next master as it was."""

    async def main() -> None:
        with Backend(greet) as backend:
            both = Discovered("web:1", "web", backend.port, ("127.0.0.1", DEAD))
            before = Stage()
            before.it.on_found((both,))
            await before.until(EndpointState.ACTIVE, (DEAD,))
            before.it.on_found(())
            health = before.it.health.export(["web:1"])
            await before.it.close()

            after = Stage()
            after.it.remember((), before.roster.removed, health)
            after.it.on_found((both,))
            assert after.state == (EndpointState.ACTIVE, (DEAD,))
            await after.it.close()

    asyncio.run(main())


def test_one_that_was_coming_back_has_not_its_whole_share_at_once() -> None:
    """With --slow-start an upgrade goes on with the ramp."""

    async def main() -> None:
        slow = dataclasses.replace(QUICK, slow_start_s=3600.0)
        with Backend(greet) as backend:
            web = Discovered("web:1", "web", backend.port, ("127.0.0.1",))
            before = Stage(slow)
            before.it.on_found((dataclasses.replace(web, addresses=(DEAD,)),))
            await before.until(EndpointState.INACTIVE)
            before.it.on_found((web,))
            await before.until(EndpointState.ACTIVE)
            assert before.roster.members[0].ramp == 10
            health = before.it.health.export(["web:1"])
            await before.it.close()

            after = Stage(slow)
            after.it.remember((web,), (), health, before.roster.since)
            assert after.roster.members[0].ramp == 10
            await after.it.close()

    asyncio.run(main())


def test_sessions_of_workers_that_have_not_reported_yet_keep_an_endpoint() -> None:
    """A master after a crash counts anew, and does not take what it does not know for nothing."""

    async def main() -> None:
        endless = dataclasses.replace(QUICK, removal_grace_s=0.0)
        web = Discovered("web:1", "web", 1, ("127.0.0.1",))
        removed = Removed(found=web, at=-1e6, grace_s=0.0, sessions=1)
        after = Stage(endless)
        after.totals.expect({WorkerId(0, 1)})
        after.it.remember((), (removed,), {})
        after.it.on_tick()
        assert [member.found for member in after.roster.members] == [web]
        report = Report(snapshot_version=1, sessions=0, loop_lag_s=0.0, rss_bytes=1, endpoints={})
        after.totals.report(WorkerId(0, 1), report)
        after.it.on_tick()
        assert not after.roster.members
        await after.it.close()

    asyncio.run(main())


def test_since_when_an_endpoint_gets_no_new_sessions() -> None:
    """Its state is ``draining`` or ``removed`` since then, however long it has been active."""

    async def main() -> None:
        stage = Stage()
        now = asyncio.get_running_loop().time()
        away, kept = (Discovered(f"{n}:1", n, 1, ("127.0.0.1",)) for n in ("away", "kept"))
        stage.it.on_found((away, kept))
        assert [view.retired_since for view in stage.it.views()] == [None, None]
        drains = dataclasses.replace(QUICK, drain_endpoints=("kept:1",))
        stage.it.reconfigure(drains)
        stage.roster.resolve((kept,), now - 50.0, 600.0)
        stage.roster.resume(Since(draining={"kept:1": now - 20.0}), now)
        since = {view.endpoint: view.retired_since for view in stage.it.views()}
        assert since["away:1"] == pytest.approx(time.time() - 50.0, abs=9)
        assert since["kept:1"] == pytest.approx(time.time() - 20.0, abs=9)
        await stage.it.close()

    asyncio.run(main())


def test_the_end_of_a_certificate_that_nothing_looks_at_any_more_is_forgotten() -> None:
    """It may be renewed without anybody noticing, and would be told as ended."""

    async def main() -> None:
        by_tls = dataclasses.replace(QUICK, health_check="tls")
        by_tcp = dataclasses.replace(by_tls, health_check="tcp")
        stage = Stage(by_tls)

        def not_after() -> float | None:
            (view,) = stage.it.views()
            return view.certificate_not_after

        def show() -> None:
            stage.certificates.ends.take(("web:1", DEAD, 1), 5.0, 0.0)

        found = Discovered("web:1", "web", 1, (DEAD,))
        stage.it.on_found((found,))
        show()
        stage.it.reconfigure(by_tls)
        await asyncio.sleep(0)
        assert not_after() == 5.0
        stage.it.reconfigure(by_tcp)
        await asyncio.sleep(0)
        assert not_after() is None
        stage.it.on_found((dataclasses.replace(found, srv=True),))
        show()
        stage.it.reconfigure(dataclasses.replace(by_tcp, discovery_srv="test"))
        await asyncio.sleep(0)
        assert not_after() == 5.0, "the TLS check looks at it"
        await stage.it.close()

    asyncio.run(main())


def test_a_reload_to_other_endpoints_is_one_snapshot() -> None:
    """No worker knows the new endpoints with the old settings, or the other way round.

    What the TLS check was just shown of them is kept, and none of them counts as unknown.
    """

    async def main() -> None:
        old, new = (Discovered(f"{name}:1", name, 1, (DEAD,)) for name in ("old", "new"))
        stage = Stage()
        stage.it.on_found((old,))
        first = stage.it.publish_from_now_on()
        config = dataclasses.replace(
            QUICK, proxy_out="v2", health_check="tls", drain_endpoints=("new:1",)
        )
        stage.certificates.ends.take(("new:1", DEAD, 1), 5.0, now=0.0)
        stage.it.reconfigure(config)
        stage.it.on_found((new,))
        await asyncio.sleep(0)
        (snapshot,) = stage.sent
        assert snapshot.version == first.version + 1
        assert snapshot.settings.proxy_out == "v2"
        states = {each.name: each.state for each in snapshot.endpoints}
        assert states == {"new:1": EndpointState.DRAINING, "old:1": EndpointState.REMOVED}
        assert stage.log.said("no such endpoint in --drain-endpoints") == []
        assert stage.certificates.ends.by_endpoint().keys() == {"new:1"}
        stage.it.reconfigure(dataclasses.replace(config, drain_endpoints=("typo:1",)))
        await asyncio.sleep(0)
        assert len(stage.sent) == 2
        assert len(stage.log.said("no such endpoint in --drain-endpoints")) == 1
        await stage.it.close()

    asyncio.run(main())


def test_what_no_worker_need_know_is_recorded_for_the_next_master() -> None:
    """As that a member list says of an endpoint that it speaks TLS; what is sent is recorded so."""

    async def main() -> None:
        seed = Discovered("seed:1", "seed", 1, (DEAD,))
        stage = Stage(dataclasses.replace(QUICK, health_check="off"))
        stage.it.on_found((seed,))
        stage.it.publish_from_now_on()
        stage.it.on_tick()
        assert (stage.sent, stage.records) == ([], 0)
        stage.it.on_found((dataclasses.replace(seed, tls=True),))
        await eventually(lambda: stage.records)
        stage.it.on_tick()
        stage.it.on_found((dataclasses.replace(seed, weight=7),))
        await eventually(lambda: stage.sent)
        assert stage.records == 1
        await stage.it.close()

    asyncio.run(main())


def test_a_drained_member_that_a_list_is_still_to_bring_is_not_called_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With --member-sync endpoints come a moment after the start; what is misspelled is told."""
    seed, member = (Discovered(f"{name}:1", name, 1, (DEAD,)) for name in ("seed", "member"))
    drained = ("member:1", "misspelled:1")

    async def main() -> None:
        config = dataclasses.replace(QUICK, member_sync_s=30.0, drain_endpoints=drained)
        stage = Stage(config)
        stage.it.on_found((seed,))
        stage.it.on_tick()
        assert stage.log.said("no such endpoint in --drain-endpoints") == []
        stage.it.on_found((seed, member))
        monkeypatch.setattr("supervisor.endpoint_tracker.FIRST_LIST_S", 0.0)
        for _ in range(2):
            stage.it.on_tick()
        (told,) = stage.log.said("no such endpoint in --drain-endpoints")
        assert told["names"] == ["misspelled:1"]
        await stage.it.close()

    asyncio.run(main())
