"""Reloads: one at a time, each with a result, each with an end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from supervisor.core.admin.views import ReloadView
from supervisor.core.config import Config
from supervisor.core.config_error import ConfigError
from supervisor.core.reload_rules import FIXED
from supervisor.discovery.requests import ReloadFailedError
from supervisor.reloader import Reloader, Steps
from tests.logbook import Logbook
from tests.support import eventually


class Gateway:
    """What a reload works on: it counts the steps, waits and fails as it is told."""

    def __init__(self, view: ReloadView | None = None) -> None:
        self.failures: list[Exception] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.begun = 0
        self.applied = self.resolved = 0
        self.ends: list[str | None] = []
        self.log = Logbook()
        self.read = Config()
        self.reloader = Reloader(
            Steps(
                running=Config,
                reread=lambda: self.read,
                fixed=lambda: FIXED,
                resolve=self.resolve,
                apply=self.apply,
                on_begin=self.begin,
                on_end=self.ends.append,
            ),
            self.log,
            view or ReloadView(),
        )

    def begin(self) -> None:
        self.begun += 1

    async def resolve(self, _config: Config, on_taken: Callable[[], None]) -> None:
        await self.gate.wait()
        on_taken()
        self.resolved += 1

    def apply(self, _config: Config) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.applied += 1


def test_a_reload_is_under_way_until_it_has_a_number() -> None:
    """The number counts reloads that ended; between begin and end one is under way."""

    async def scenario() -> None:
        gateway = Gateway()
        gateway.gate.clear()
        gateway.reloader.ask()
        await eventually(lambda: gateway.begun == 1)
        assert (gateway.reloader.view.number, gateway.reloader.view.under_way) == (0, True)
        gateway.gate.set()
        await eventually(lambda: gateway.ends == [None])
        assert (gateway.reloader.view.number, gateway.reloader.view.under_way) == (1, False)
        assert gateway.reloader.view.last_result == "complete"

    asyncio.run(scenario())


def test_many_requests_during_a_reload_are_one_more_reload() -> None:
    """The second one reads the configuration after the last request."""

    async def scenario() -> None:
        gateway = Gateway()
        gateway.gate.clear()
        gateway.reloader.ask()
        await eventually(lambda: gateway.begun == 1)
        for _ in range(5):
            gateway.reloader.ask()
        gateway.gate.set()
        await eventually(lambda: len(gateway.ends) == 2)
        assert gateway.reloader.view.results == {"complete": 2}

    asyncio.run(scenario())


def test_every_failure_ends_the_reload() -> None:
    """Expected or not, it has a result and a reason, and the next reload works."""

    async def scenario() -> None:
        gateway = Gateway()
        for failure in (
            ConfigError("file", None, "bad"),
            ReloadFailedError("no endpoint"),
            OSError(24, "Too many open files"),
            KeyError("a bug"),
        ):
            gateway.failures = [failure]
            before = len(gateway.ends)
            gateway.reloader.ask()
            await eventually(lambda before=before: len(gateway.ends) > before)  # type: ignore[misc]
        assert [end is not None for end in gateway.ends] == [True] * 4
        assert len(gateway.log.said("reload failed")) == 4
        assert "a bug" in str(gateway.reloader.view.last_error)
        gateway.reloader.ask()
        await eventually(lambda: len(gateway.ends) == 5)
        assert gateway.reloader.view.results == {"failed": 4, "complete": 1}
        assert gateway.applied == 1
        assert gateway.resolved == 5, "a resolution does not fail with what is made of it"

    asyncio.run(scenario())


def test_a_reload_that_an_upgrade_interrupted_or_a_start_put_off_is_done() -> None:
    """Whoever waits for its number gets it, from the next image too."""

    async def scenario() -> None:
        idle = Gateway(ReloadView(results={"complete": 4}))
        idle.reloader.resume()
        await asyncio.sleep(0)
        assert idle.begun == 0
        idle.reloader.remember()
        await asyncio.sleep(0)
        assert idle.begun == 0
        idle.reloader.resume()
        await eventually(lambda: idle.ends == [None])
        gateway = Gateway(ReloadView(results={"complete": 4}, under_way=True))
        gateway.reloader.resume()
        await eventually(lambda: gateway.ends == [None])
        assert gateway.reloader.view.number == 5

    asyncio.run(scenario())


def test_what_a_reload_refused_is_over_with_an_upgrade() -> None:
    """The next image has read the configuration itself, so the one in use is the newest."""

    async def scenario() -> None:
        before = Gateway()
        before.failures.append(ConfigError("--workers", "nonsense", "expected a number"))
        before.reloader.ask()
        await eventually(lambda: len(before.ends) == 1)
        assert before.reloader.view.refused
        after = Gateway(before.reloader.view).reloader.view
        assert (after.last_result, after.refused) == ("failed", False)
        before.reloader.ask()
        await eventually(lambda: len(before.ends) == 2)
        assert not before.reloader.view.refused

    asyncio.run(scenario())


def test_what_a_reload_could_not_apply_is_known_until_it_is_in_use() -> None:
    """A failed reload changes nothing of that; the next image has read it, and uses it."""

    async def scenario() -> None:
        gateway = Gateway()

        async def reload(read: Config) -> tuple[str, ...]:
            gateway.read = read
            count = len(gateway.ends)
            gateway.reloader.ask()
            await eventually(lambda: len(gateway.ends) > count)
            return gateway.reloader.view.needs_restart

        assert await reload(Config(workers=3, dial_timeout_s=1.0)) == ("--workers",)
        gateway.failures.append(ReloadFailedError("no endpoint"))
        assert await reload(Config()) == ("--workers",)
        assert Gateway(gateway.reloader.view).reloader.view.needs_restart == ()
        assert await reload(Config()) == ()

    asyncio.run(scenario())


def test_a_reload_that_was_asked_for_while_one_ran_outlives_an_upgrade() -> None:
    """Both have a number of their own, because somebody may wait for the second one."""

    async def scenario() -> None:
        before = Gateway()
        before.gate.clear()
        before.reloader.ask()
        await eventually(lambda: before.begun == 1)
        before.reloader.ask()
        after = Gateway(before.reloader.view)
        after.reloader.resume()
        await eventually(lambda: len(after.ends) == 2)
        assert (after.reloader.view.number, after.reloader.view.under_way) == (2, False)
        before.reloader.cancel()

    asyncio.run(scenario())


def test_whoever_asks_beside_a_reload_that_an_upgrade_interrupted_gets_one_of_its_own() -> None:
    """The one under way had read the configuration before: it is not the answer."""

    async def scenario() -> None:
        gateway = Gateway(ReloadView(under_way=True))
        gateway.reloader.ask()
        await eventually(lambda: len(gateway.ends) == 2)
        assert gateway.reloader.view.number == 2

    asyncio.run(scenario())


def test_the_end_of_a_start_is_no_reason_for_a_second_reload() -> None:
    """One that is under way already is neither put off nor interrupted."""

    async def scenario() -> None:
        gateway = Gateway()
        gateway.gate.clear()
        gateway.reloader.ask()
        await eventually(lambda: gateway.begun == 1)
        gateway.reloader.resume()
        gateway.gate.set()
        await eventually(lambda: not gateway.reloader.view.under_way)
        for _ in range(5):
            await asyncio.sleep(0)
        assert gateway.begun == 1

    asyncio.run(scenario())
