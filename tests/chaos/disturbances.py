"""The disturbances: each is a generator that begins one, waits, and ends it."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.chaos.network import MEMBERS
from tests.chaos.records import Disturbance, Records
from tests.chaos.stage import NAMES, ManagedGateway, Stage, stop_for
from tests.dns import Fault

READY = "ready to proxy client requests"
FAILED = ("upgrade failed, the old image goes on", "upgrade failed, the old workers go on")
UPGRADE_S = 120.0
LIES = (Fault.TIMEOUT, Fault.SERVFAIL, Fault.REFUSED, Fault.NXDOMAIN, Fault.EMPTY, Fault.GARBAGE,
        Fault.WRONG_ID, Fault.NOTHING)  # fmt: skip
CGROUPS = Path("/sys/fs/cgroup")

Say = Callable[[str], None]


class Disturber:
    """Does one thing after the other, as chance has it; ``say`` gets the timeline."""

    def __init__(self, stage: Stage, records: Records, chance: random.Random, say: Say) -> None:
        self.stage = stage
        self.records = records
        self.chance = chance
        self._say = say

    def disturb(self) -> None:
        """One thing that happens to links or names, one that happens to processes, or both."""
        world = self.chance.choice([None, *self.worlds()])
        act = self.chance.choice([None, *self.acts()] if world else self.acts())
        with contextlib.ExitStack() as stack:
            if world:
                stack.enter_context(world())
                self.stage.pause(self.chance.uniform(0.0, 1.0))
            if act:
                act()
            if world:
                self.stage.pause(self.chance.uniform(0.5, 4.0))

    def worlds(self) -> list[Callable[[], contextlib.AbstractContextManager[None]]]:
        return [
            self.one_cut, self.all_cut, self.slow, self.lossy, self.partition, self.lies,
            self.wrong_address, self.dead_member, self.dead_backend,
        ]  # fmt: skip

    def acts(self) -> list[Callable[[], None]]:
        acts = [
            self.kill_worker, self.stop_worker, self.stop_master, self.crash_master, self.restart,
            self.reload, self.storm, self.upgrade, self.upgrade_into_bad_file,
            self.upgrade_into_broken_code, self.scale,
        ]  # fmt: skip
        return [*acts, self.starve] if can_starve() else acts

    @contextlib.contextmanager
    def _noted(self, name: str, **may: bool) -> Iterator[None]:
        noted = Disturbance(name, time.time(), **may)
        self.records.disturbances.append(noted)
        self._say(name)
        try:
            yield
        finally:
            noted.ended_at = time.time()

    def _any(self) -> ManagedGateway:
        return self.chance.choice(self.stage.gateways)

    # -- links, names, members ------------------------------------------------------------------

    @contextlib.contextmanager
    def _links(self, name: str, pairs: list[tuple[int, int]], **treatment: float) -> Iterator[None]:
        cuts = bool(treatment.get("cut"))
        reached = {b for a, b in pairs if a == 0}
        with self._noted(name, cuts=cuts, all_down=cuts and len(reached) == 3):
            self.stage.network.set(pairs, **treatment)
            try:
                yield
            finally:
                self.stage.network.set(pairs)

    def one_cut(self) -> contextlib.AbstractContextManager[None]:
        index = self.chance.randrange(3)
        pairs = [*self.stage.network.between(index), *self.stage.network.around(index)]
        return self._links(f"member {index} is cut off", pairs, cut=True)

    def all_cut(self) -> contextlib.AbstractContextManager[None]:
        pairs = [pair for index in range(3) for pair in self.stage.network.between(index)]
        return self._links("all members are cut off", pairs, cut=True)

    def slow(self) -> contextlib.AbstractContextManager[None]:
        index, delay_s = self.chance.randrange(3), self.chance.uniform(0.05, 0.4)
        pairs = list(self.stage.network.between(index))
        return self._links(f"member {index} is {delay_s:.2f} s away", pairs, delay_s=delay_s)

    def lossy(self) -> contextlib.AbstractContextManager[None]:
        index, loss = self.chance.randrange(3), self.chance.uniform(0.02, 0.3)
        pairs = list(self.stage.network.between(index))
        name = f"{loss:.0%} of the packets of member {index} are lost, the others out of order"
        return self._links(name, pairs, loss=loss, jitter_s=0.03, delay_s=0.005)

    def partition(self) -> contextlib.AbstractContextManager[None]:
        index = self.chance.randrange(3)
        pairs = list(self.stage.network.around(index))
        name = f"member {index} does not reach the other members"
        return self._links(name, pairs, delay_s=0.0, loss=1.0)

    def lies(self) -> contextlib.AbstractContextManager[None]:
        fault = self.chance.choice(LIES)
        return self._lying(
            f"the nameserver: {fault.name}", lambda: self.stage.dns.faults.update({"": fault})
        )

    def wrong_address(self) -> contextlib.AbstractContextManager[None]:
        index = self.chance.randrange(3)
        nobody = MEMBERS[index][:-1] + "9"
        return self._lying(
            f"the nameserver gives an address of nobody for member {index}",
            lambda: self.stage.dns.set(NAMES[index], "A", nobody, ttl=5),
        )

    @contextlib.contextmanager
    def _lying(self, name: str, begin: Callable[[], None]) -> Iterator[None]:
        """After ``begin`` the nameserver lies, and the gateways ask it at once."""
        with self._noted(name):
            begin()
            for gateway in self.stage.gateways:
                os.kill(gateway.pid, signal.SIGHUP)
            try:
                yield
            finally:
                self.stage.tell_truth()

    @contextlib.contextmanager
    def dead_member(self) -> Iterator[None]:
        index = self.chance.randrange(3)
        with self._noted(f"etcd member {index} is killed", kills_member=True):
            self.stage.cluster.kill(index)
            try:
                yield
            finally:
                self.stage.cluster.start(index)

    @contextlib.contextmanager
    def dead_backend(self) -> Iterator[None]:
        index = self.chance.randrange(3)
        with self._noted(f"backend {index} is killed", cuts=True, hangs_up=True):
            self.stage.kill_backend(index)
            try:
                yield
            finally:
                self.stage.start_backend(index)

    # -- processes ------------------------------------------------------------------------------

    def kill_worker(self) -> None:
        if workers := (gateway := self._any()).workers():
            with self._noted(f"{gateway.folder.name}: a worker is killed", cuts=True, kills=True):
                os.kill(self.chance.choice(workers), signal.SIGKILL)
                self.stage.pause(0.2)

    def stop_worker(self) -> None:
        seconds = self.chance.uniform(0.3, 3.0)
        if workers := (gateway := self._any()).workers():
            with self._noted(f"{gateway.folder.name}: a worker stands still for {seconds:.1f} s"):
                stop_for(self.chance.choice(workers), lambda: self.stage.pause(seconds))

    def stop_master(self) -> None:
        seconds, gateway = self.chance.uniform(0.3, 3.0), self._any()
        with self._noted(f"{gateway.folder.name}: the master stands still for {seconds:.1f} s"):
            stop_for(gateway.pid, lambda: self.stage.pause(seconds))

    def crash_master(self) -> None:
        gateway = self._any()
        with self._noted(f"{gateway.folder.name}: the master is killed, and started again"):
            gateway.manager.end_main(signal.SIGKILL)
            gateway.manager.start()

    def restart(self) -> None:
        gateway = self._any()
        with self._noted(f"{gateway.folder.name}: restart by the service manager"):
            gateway.manager.end_main(signal.SIGTERM)
            gateway.manager.start()

    def reload(self) -> None:
        gateway = self._any()
        with self._noted(f"{gateway.folder.name}: HUP"):
            os.kill(gateway.pid, signal.SIGHUP)

    def storm(self) -> None:
        gateway = self._any()
        with self._noted(f"{gateway.folder.name}: twenty HUP"):
            for _ in range(20):
                os.kill(gateway.pid, signal.SIGHUP)
                self.stage.pause(0.02)

    def upgrade(self) -> None:
        gateway = self._any()
        with self._noted(f"{gateway.folder.name}: USR2"):
            self._ask_upgrade(gateway)

    def upgrade_into_bad_file(self) -> None:
        gateway = self._any()
        with self._noted(f"{gateway.folder.name}: USR2 with a bad config file"):
            gateway.config.write_text("nonsense = 1\n")
            try:
                self._ask_upgrade(gateway)
            finally:
                gateway.config.write_text(gateway.good)

    def upgrade_into_broken_code(self) -> None:
        gateway = self._any()
        with self._noted(f"{gateway.folder.name}: USR2 with half an installation"):
            broken = "raise ImportError('half installed')"
            self.stage.installation.insert("gateway/sessions/relay.py", broken)
            try:
                self._ask_upgrade(gateway)
            finally:
                self.stage.installation.install()

    def _ask_upgrade(self, gateway: ManagedGateway) -> None:
        """Until it is over, well or not: both happen, as the nameserver may lie meanwhile."""
        over = (READY, *FAILED, "no upgrade now")
        before = gateway.said(*over)
        os.kill(gateway.pid, signal.SIGUSR2)
        self.stage.until(lambda: gateway.said(*over) > before, UPGRADE_S, "the upgrade is over")

    def scale(self) -> None:
        gateway = self._any()
        with self._noted(f"{gateway.folder.name}: one worker more, one fewer"):
            os.kill(gateway.pid, signal.SIGTTIN)
            self.stage.pause(self.chance.uniform(0.1, 1.0))
            os.kill(gateway.pid, signal.SIGTTOU)

    def starve(self) -> None:
        gateway, seconds = self._any(), self.chance.uniform(1.0, 4.0)
        percent = self.chance.choice((5, 20))
        with self._noted(f"{gateway.folder.name}: {percent} % of a CPU for {seconds:.1f} s"):
            with starved([gateway.pid, *gateway.workers()], percent):
                self.stage.pause(seconds)


def _cpu_groups() -> tuple[Path, bool]:
    two = (CGROUPS / "cgroup.controllers").exists()
    return CGROUPS / ("" if two else "cpu"), two


def can_starve() -> bool:
    """Whether a control group with a quota can be made here."""
    parent, two = _cpu_groups()
    probe = parent / f"chaos-probe-{os.getpid()}"
    try:
        probe.mkdir()
    except OSError:
        return False
    can = (probe / ("cpu.max" if two else "cpu.cfs_quota_us")).exists()
    probe.rmdir()
    return can


@contextlib.contextmanager
def starved(pids: list[int], percent: int) -> Iterator[None]:
    """These processes have so much of one CPU together."""
    parent, two = _cpu_groups()
    group = parent / f"chaos-{os.getpid()}"
    group.mkdir()
    try:
        if two:
            (group / "cpu.max").write_text(f"{percent * 1000} 100000")
        else:
            (group / "cpu.cfs_quota_us").write_text(str(percent * 1000))
        for pid in pids:
            with contextlib.suppress(OSError):  # it is gone
                (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        for left in (group / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                (parent / "cgroup.procs").write_text(left)
        group.rmdir()
