"""Health of endpoints with several addresses, with real probes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest

from supervisor.core.config import Config
from supervisor.core.discovery.endpoints import Discovered
from supervisor.core.health.health_view import HealthView
from supervisor.health.endpoint_health import EndpointHealth
from tests.backends import Backend, greet
from tests.logbook import Logbook
from tests.support import eventually, free_port

QUICK = Config(
    health_interval_s=0.1, health_idle_interval_s=0.1, health_timeout_s=1.0, retry_delay_s=0.2
)
GOOD, DEAD = "127.0.0.1", "127.0.0.9"
NO_WAY = "255.255.255.255"
"""The kernel of this host refuses to dial it: network is unreachable."""


class Stage:
    """The health of one endpoint with two addresses, and everything that was said of it."""

    def __init__(
        self,
        port: int,
        *more: Discovered,
        addresses: Sequence[str] = (GOOD, DEAD),
        config: Config = QUICK,
        later_s: float = 0.0,
    ):
        self.log = Logbook()
        self.changes: list[tuple[str, bool, tuple[str, ...]]] = []
        self.it = EndpointHealth(
            config,
            self.log,
            lambda *change: self.changes.append(change),
            wall=lambda: time.time() + later_s,
        )
        self.found = Discovered("web:1", "web", port, tuple(addresses))
        self.it.set_endpoints([self.found, *more])

    @property
    def active(self) -> dict[str, bool]:
        return {a: view.active for a, view in self.it.address_views("web:1").items()}


def test_a_dead_address_is_inactive_and_its_endpoint_is_not() -> None:
    """Each address has its own verdict, and the log names it."""

    async def main() -> None:
        with Backend(greet) as backend:
            stage = Stage(backend.port)
            await eventually(lambda: stage.active == {GOOD: True, DEAD: False})
            assert stage.changes == [("web:1", True, (DEAD,))]
            (line,) = stage.log.lines_of("deactivated endpoint")
            assert (line["endpoint"], line["address"]) == ("web:1", DEAD)
            view = stage.it.view("web:1")
            assert view is not None
            assert view.active
            assert view.last_error == f"{DEAD}: connection refused"
            backend.stop()
            await eventually(lambda: stage.active == {GOOD: False, DEAD: False})
            assert stage.changes[-1][:2] == ("web:1", False)
            await stage.it.close()

    asyncio.run(main())


TOO_FEW = "too few endpoints are active, failed probes take none away"


def test_many_good_addresses_are_one_endpoint_among_the_active() -> None:
    """Of five endpoints four are dead: one of these is kept, however many addresses are good."""

    async def main() -> None:
        good = [f"127.0.0.{number}" for number in range(1, 8)]
        with Backend(greet, host="0.0.0.0") as backend:
            dead = [Discovered(f"d{n}:1", "d", free_port(), (GOOD,)) for n in range(4)]
            stage = Stage(backend.port, *dead, addresses=good)
            await eventually(lambda: stage.log.said(TOO_FEW))
            said = stage.log.said(TOO_FEW)[0]
            assert (said["active"], said["endpoints"]) == (2, 5)
            assert len(stage.changes) == 3
            kept = stage.it.view(said["endpoint"])
            assert kept is not None
            assert kept.active
            assert kept.kept
            await stage.it.close()

    asyncio.run(main())


def test_many_dead_addresses_are_one_endpoint_among_the_inactive() -> None:
    """Three endpoints are good, and the addresses of the fourth are all taken away."""

    async def main() -> None:
        bad = [f"127.0.0.{number}" for number in range(2, 9)]
        with Backend(greet) as backend:
            good = [Discovered(f"g{n}:1", "g", backend.port, (GOOD,)) for n in range(3)]
            stage = Stage(backend.port, *good, addresses=bad)
            await eventually(lambda: not any(stage.active.values()))
            assert stage.changes[-1] == ("web:1", False, tuple(bad))
            assert not stage.log.said(TOO_FEW)
            await stage.it.close()

    asyncio.run(main())


def test_what_workers_report_counts_for_the_address() -> None:
    """A failed dial is evidence against that address, a success for it."""

    async def main() -> None:
        with (
            Backend(greet) as backend,
            Backend(greet, host=DEAD, port=backend.port),
        ):
            stage = Stage(backend.port)
            await eventually(lambda: stage.it.view("web:1") is not None)
            stage.it.take_traffic("web:1", sessions=2, dials=2, bytes_out=9, by_address={GOOD: 2})
            stage.it.dial_failed("web:1", DEAD, "connection refused", "refused")
            assert stage.active == {GOOD: True, DEAD: False}
            stage.it.dial_succeeded("web:1", DEAD)
            assert stage.active == {GOOD: True, DEAD: True}
            assert stage.changes == [("web:1", True, (DEAD,)), ("web:1", True, ())]
            await stage.it.close()

    asyncio.run(main())


def test_addresses_come_and_go() -> None:
    """An endpoint whose name gets or loses addresses is watched as it is now."""

    async def main() -> None:
        with Backend(greet) as backend:
            stage = Stage(backend.port)
            one = Discovered("web:1", "web", backend.port, (GOOD,))
            stage.it.set_endpoints([one])
            assert stage.it.address_views("web:1") == {}
            assert stage.it.view("web:1") is not None
            assert list(stage.it.export(["web:1", "gone:1"])) == ["web:1"]
            three = Discovered("web:1", "web", backend.port, (GOOD, DEAD, "127.0.0.8"))
            stage.it.set_endpoints([three], retired=["web:1"])
            assert list(stage.active) == list(three.addresses)
            exported = stage.it.export(["web:1"])
            assert sorted(exported) == [
                "web:1",
                *(f"web:1 {each}" for each in sorted(three.addresses)),
            ]
            stage.it.set_endpoints([stage.found])
            assert list(stage.active) == list(stage.found.addresses)
            stage.it.reconfigure(QUICK)
            await stage.it.close()

    asyncio.run(main())


def test_an_endpoint_with_other_addresses_is_judged_anew() -> None:
    """It was inactive at the only address it had: nobody would tell that the new ones are not."""

    async def main() -> None:
        with Backend(greet) as backend:
            stage = Stage(backend.port, addresses=[DEAD])
            await eventually(lambda: stage.changes == [("web:1", False, ())])
            both = Discovered("web:1", "web", backend.port, (GOOD, DEAD))
            stage.it.set_endpoints([both])
            assert stage.changes[1:] == [("web:1", True, ())]
            await eventually(lambda: stage.changes[-1] == ("web:1", True, (DEAD,)))
            stage.it.set_endpoints([both])
            assert len(stage.changes) == 3, "the same addresses again are no news"
            one = Discovered("web:1", "web", backend.port, (GOOD,))
            stage.it.set_endpoints([one])
            assert stage.changes[3:] == [("web:1", True, ())]
            await stage.it.close()

    asyncio.run(main())


def test_the_next_master_goes_on() -> None:
    """What an address was stays through an upgrade."""

    async def main() -> None:
        with Backend(greet) as backend:
            stage = Stage(backend.port)
            await eventually(lambda: stage.active == {GOOD: True, DEAD: False})
            exported = stage.it.export(["web:1"])
            after = Stage(backend.port, later_s=3600)
            after.it.remember(exported)
            assert after.active == {GOOD: True, DEAD: False}
            assert after.changes == [("web:1", True, (DEAD,))]
            assert since(after) == since(stage)
            await after.it.close()
            backend.stop()
            await eventually(lambda: stage.active == {GOOD: False, DEAD: False})
            exported, ended = stage.it.export(["web:1"]), since(stage)
            await stage.it.close()
            after = Stage(backend.port, later_s=3600)
            after.it.remember(exported)
            assert since(after) == pytest.approx(ended, abs=1)
            await after.it.close()

    asyncio.run(main())


def since(stage: Stage) -> float | None:
    view = stage.it.view("web:1")
    assert view is not None
    return view.since


def test_an_endpoint_with_other_addresses_is_active_for_as_long_as_it_was() -> None:
    """With one address more, others, or one alone: only a change of its state begins a new time."""

    async def main() -> None:
        with Backend(greet) as backend:
            stage = Stage(backend.port, addresses=(GOOD,))
            began = since(stage)
            for addresses in ((GOOD, "127.0.0.2"), ("127.0.0.3", GOOD), ("127.0.0.4",), (GOOD,)):
                stage.it.set_endpoints([replace(stage.found, addresses=addresses)])
                assert since(stage) == began
            await stage.it.close()

    asyncio.run(main())


def test_the_next_master_knows_when_an_endpoint_failed_last() -> None:
    """It shows the last error of one that has recovered with its age."""

    async def main() -> None:
        with Backend(greet) as backend:
            stage = Stage(backend.port, addresses=(GOOD,))
            stage.it.dial_failed("web:1", "", "connection refused", "refused")
            await eventually(lambda: stage.changes[-1:] == [("web:1", True, ())])
            before, exported = stage.it.view("web:1"), stage.it.export(["web:1"])
            await stage.it.close()
            after = Stage(backend.port, addresses=(GOOD,), later_s=3600)
            after.it.remember(exported)
            view = after.it.view("web:1")
            assert before is not None
            assert view is not None
            assert (view.active, view.last_error) == (True, "connection refused")
            assert view.last_error_at == pytest.approx(before.last_error_at, abs=1)
            await after.it.close()

    asyncio.run(main())


def test_an_address_that_cannot_be_dialed_keeps_no_endpoint_active() -> None:
    """As an AAAA record on a host without IPv6: the address that can be dialed tells."""

    async def main() -> None:
        with Backend(greet) as backend:
            stage = Stage(backend.port, addresses=(GOOD, NO_WAY))
            await eventually(lambda: stage.it.address_views("web:1")[NO_WAY].unreached)
            await eventually(lambda: stage.it.address_views("web:1")[GOOD].probes)
            view = stage.it.view("web:1")
            assert view is not None
            assert (view.active, view.cut_off, view.last_error) == (True, None, None)
            assert (len(stage.log.said("cannot probe")), stage.log.said("cannot dial")) == (1, [])
            backend.stop()
            await eventually(lambda: stage.changes[-1:] == [("web:1", False, (GOOD,))])
            view = stage.it.view("web:1")
            assert view is not None
            assert (view.active, view.cut_off) == (False, None)
            assert view.last_error == f"{GOOD}: connection refused"
            exported = stage.it.export(["web:1"])
            await stage.it.close()
            after = Stage(backend.port, addresses=(GOOD, NO_WAY))
            after.it.remember(exported)
            after.it.tell("web:1")
            assert after.changes[-1] == ("web:1", False, (GOOD,))
            with Backend(greet, port=backend.port):
                await eventually(lambda: after.changes[-1] == ("web:1", True, ()))
            await after.it.close()

    asyncio.run(main())


def test_an_address_that_passed_under_a_former_master_had_a_way_once() -> None:
    """Counters begin at zero after a crash, but what its probes showed is known."""

    async def main() -> None:
        with Backend(greet) as backend:
            stage = Stage(backend.port, addresses=(GOOD, NO_WAY))
            known = HealthView(active=True, since=1.0, has_passed=True)
            stage.it.remember({f"web:1 {NO_WAY}": known})
            await eventually(lambda: stage.it.address_views("web:1")[NO_WAY].cut_off)
            assert not stage.it.address_views("web:1")[NO_WAY].unreached
            await stage.it.close()

    asyncio.run(main())


def test_without_probes_an_address_that_cannot_be_dialed_is_found_out() -> None:
    """A worker could dial none of them, and probes are off: one probe tells what is the matter."""

    async def main() -> None:
        config = replace(QUICK, health_check="off")
        stage = Stage(free_port(), addresses=(GOOD, NO_WAY), config=config)
        stage.it.dial_failed("web:1", GOOD, "connection refused", "refused")
        assert stage.changes == [("web:1", True, (GOOD,))]
        stage.it.dial_failed("web:1", NO_WAY, "network is unreachable", "local")
        await eventually(lambda: stage.changes[-1] == ("web:1", False, (GOOD,)))
        await stage.it.close()

    asyncio.run(main())


def test_an_address_that_cannot_be_dialed_makes_no_endpoint_one_of_the_active() -> None:
    """Of four endpoints that all fail, one is kept, also if each has such an address beside."""

    async def main() -> None:
        names = ["web:1", "d0:1", "d1:1", "d2:1"]
        with contextlib.ExitStack() as stack:
            backends = [stack.enter_context(Backend(greet)) for _ in names]
            others = [
                Discovered(name, "d", backend.port, (GOOD, NO_WAY))
                for name, backend in zip(names[1:], backends[1:], strict=True)
            ]
            stage = Stage(backends[0].port, *others, addresses=(GOOD, NO_WAY))

            def is_settled(name: str) -> bool:
                views = stage.it.address_views(name)
                return views[NO_WAY].unreached and bool(views[GOOD].probes)

            await eventually(lambda: all(map(is_settled, names)))
        await eventually(lambda: stage.log.said(TOO_FEW))
        (said,) = stage.log.said(TOO_FEW)
        assert (said["active"], said["endpoints"]) == (1, 4)
        kept = stage.it.view(said["endpoint"])
        assert kept is not None
        assert (kept.active, kept.kept) == (True, True)
        await stage.it.close()

    asyncio.run(main())


def counted(stage: Stage) -> list[float]:
    """Everything that a counter of the metrics is made of."""
    view = stage.it.view("web:1")
    assert view is not None
    return [
        view.probe_failures,
        view.probe_seconds,
        sum(view.probes.values()),
        sum(view.probe_buckets),
        sum(view.transitions.values()),
    ]


def test_counters_do_not_fall_when_addresses_leave() -> None:
    """What was counted at an address stays with its endpoint, also under the next master."""

    async def main() -> None:
        with Backend(greet) as backend:
            stage = Stage(backend.port)
            await eventually(lambda: stage.active == {GOOD: True, DEAD: False})
            stage.it.dial_failed("web:1", DEAD, "connection refused", "refused")
            before = counted(stage)
            assert all(before)
            found = stage.found
            for addresses in ((GOOD, "127.0.0.8"), (GOOD,), (GOOD, DEAD), ("127.0.0.7", DEAD)):
                found = replace(found, addresses=addresses)
                stage.it.set_endpoints([found])
                assert counted(stage) == pytest.approx(before)
            exported = stage.it.export(["web:1"])
            for addresses in (("127.0.0.7", DEAD), ("127.0.0.6", DEAD), (GOOD,)):
                after = Stage(backend.port, addresses=addresses)
                after.it.remember(exported)
                assert counted(after) == pytest.approx(before)
                await after.it.close()
            stage.it.set_endpoints([])
            stage.it.set_endpoints([found])
            assert not any(counted(stage)), "another one of that name"
            await stage.it.close()

    asyncio.run(main())
