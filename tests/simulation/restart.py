"""A restart under a service manager that keeps descriptors, with another configuration perhaps."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import TYPE_CHECKING

from supervisor.core import next_master
from supervisor.core.config import Config
from supervisor.core.handover_document import decode
from supervisor.core.handover_state import HandoverState
from supervisor.workers.inherited import InheritedDescriptors
from tests.simulation.plan import draw_config

if TYPE_CHECKING:
    from tests.simulation.master import Master
    from tests.simulation.simulation import World

BARRIER_S = 0.05
"""Until the service manager has everything, at most; with few descriptors it takes longer."""
OTHER_NAME = "other"
"""Another name of the service: it has the same members, and is another target."""


def restart(world: World, which: int, gap_s: float) -> None:
    """TERM: the master leaves, and the workers go on until those of the next one are ready."""
    master = world.master
    if master is None or not master.lives or master.draining or world.shutting():
        return
    draw = random.Random(which)
    config = draw_restart(draw, master.config)
    workers = draw.choice((1, 2, 3, 4))
    if master.started:
        master.leave()
        wait_s = world.draw() * BARRIER_S + (2.0 if which % 8 == 7 else 0.0)
        master.soon(wait_s, _left, world, master, config, workers, gap_s)
    elif master.left:  # it ends at once, and the service manager still has what was left to it
        world.end_image(master, gap_s)
        _boot_later(world, master.left, master.inherited, config, workers, gap_s)


def crash(world: World, which: int, gap_s: float) -> None:
    """SIGKILL after somebody edited the configuration, and loaded it nowhere."""
    master = world.master
    if master is None or not world.may_crash(master):
        return
    draw = random.Random(which)
    config = draw_restart(draw, master.config)
    state, inherited = take_stored(world, master)
    world.end_image(master, gap_s)
    workers = draw.choice((1, 2, 3, 4))
    _boot_later(world, state, inherited, config, workers, gap_s, crashed=True)


def draw_restart(draw: random.Random, running: Config) -> Config:
    """What operators change at a restart: nothing, or anything."""
    if draw.random() < 0.3:
        return running
    config = draw_config(draw, running)
    if draw.random() < 0.3:
        other = "" if running.discovery_srv_name else OTHER_NAME
        config = replace(config, discovery_srv_name=other)
    if draw.random() < 0.3:
        config = replace(config, insecure_discovery=not running.insecure_discovery)
    return config


def _left(world: World, master: Master, config: Config, workers: int, gap_s: float) -> None:
    """The master is gone; the service manager has its descriptors, and the record."""
    state, inherited = take_stored(world, master)
    world.end_image(master, gap_s)
    _boot_later(world, state, inherited, config, workers, gap_s)


def take_stored(world: World, master: Master) -> tuple[HandoverState, InheritedDescriptors]:
    """What the service manager has for the next master, as ``handover.inheritance`` reads it."""
    world.crashes += 1
    world.checks.counts_begin_anew()
    state = decode(json.loads(master.record))
    inherited = InheritedDescriptors.from_names(
        ((name, 0) for name in master.stored()),
        gens=state.gens,
        leaving=state.draining,
        drains_until=state.drains_until,
    )
    world.members_oracle.left(state)
    world.oracle.recorded(state)
    return state, inherited


def _boot_later(
    world: World,
    state: HandoverState,
    inherited: InheritedDescriptors,
    config: Config,
    workers: int,
    gap_s: float,
    crashed: bool = False,
) -> None:
    world.clock.after(gap_s, _boot, world, state, inherited, config, workers, crashed)


def _boot(
    world: World,
    state: HandoverState,
    inherited: InheritedDescriptors,
    config: Config,
    workers: int,
    crashed: bool,
) -> None:
    if world.clock.now < world.master_late_until:
        late_until = world.master_late_until
        world.clock.at(late_until, _boot, world, state, inherited, config, workers, crashed)
        return
    fitting = next_master.fit(state, config, world.clock.now)
    world.oracle.restarts(state, fitting, config)
    left = None if crashed else state
    world.boot(fitting, inherited, config=config, workers=workers, left=left, crashed=crashed)
