"""What a disturbance of the plan does to the world."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from tests.simulation.network import Mode
from tests.simulation.plan import Event, Kind, draw_config
from tests.simulation.restart import crash, restart

if TYPE_CHECKING:
    from tests.simulation.simulation import World

MODES = {
    Kind.REFUSING: Mode.REFUSING,
    Kind.SILENT: Mode.SILENT,
    Kind.SICK: Mode.SICK,
    Kind.WELL: Mode.WELL,
}
DISORDERS = frozenset({
    Kind.LAME, Kind.LATE_DNS, Kind.BROKEN_DNS, Kind.DEAF_DNS, Kind.DENYING, Kind.EMPTY, Kind.HALF,
})  # fmt: skip


def disturb(world: World, event: Event) -> None:
    """Do to the world what the event says."""
    now, much, which = world.clock.now, event.much, event.which
    network, master = world.network, world.master
    ready = [process for process in world.processes if process.ready]
    victim = ready[which % len(ready)] if ready else None
    match event.kind:
        case Kind.BURST:
            for _ in range(1 + which % 16):
                world.connect()
        case Kind.KILL if victim is not None:
            world.disturb_for(0.5)
            victim.exit()
        case Kind.KILL_ALL:
            for process in tuple(world.processes):
                process.exit()
        case Kind.HANG if victim is not None:
            victim.late_until = max(victim.late_until, now + 6.0 * much**2)
        case Kind.MASTER_LATE:
            world.master_late_until = max(world.master_late_until, now + 3.0 * much**2)
            world.disturb_for(3.0 * much**2 + 0.5)
        case Kind.HOST_LATE:
            world.master_late_until = max(world.master_late_until, now + 8.0 * much**2)
            world.disturb_for(8.0 * much**2 + 0.5)
            for process in world.processes:
                process.late_until = max(process.late_until, now + 8.0 * much**2)
        case Kind.PIPE_STALL if victim is not None:
            victim.channel.stalled_until = now + 2.0 * much
            world.disturb_for(2.0 * much + 0.5)
        case Kind.FAILED_START:
            world.lay_up("fails_at_start", 1 + which % 4)
        case Kind.SLOW_START:
            world.slow_start_s = 5.0 * much**2
        case Kind.NO_FORK:
            world.lay_up("no fork", 1 + which % 4)
        case Kind.NO_ADOPTION:
            world.lay_up("no adoption", 1 + which % 4)
        case Kind.FEW_DESCRIPTORS:
            world.limits.append(16 + which)
        case Kind.RELOAD if master is not None and master.lives:
            master.reload(draw_config(random.Random(which), master.config))
        case Kind.MORE if master is not None and master.lives and master.fleet.wanted < 4:
            master.resize(+1)
        case Kind.FEWER if master is not None and master.lives:
            master.resize(-1)
        case Kind.UPGRADE:
            world.upgrade(which, 0.05 + much)
        case Kind.CRASH:
            world.crash(0.05 + much)
        case Kind.CRASH_EDITED:
            crash(world, which, 0.05 + much)
        case Kind.RESTART:
            restart(world, which, 0.05 + much)
        case Kind.REFUSING | Kind.SILENT | Kind.SICK | Kind.WELL:
            network.set_mode(which, MODES[event.kind], now)
        case Kind.OTHER_ZONE:
            network.servers[which % 2].lacks.add(which % len(network.members))
        case Kind.MENDED_DNS:
            for server in network.servers:
                server.disorder = None
                server.lacks.clear()
        case Kind.JOIN:
            network.join(which)
        case Kind.LEAVE:
            network.leave(which)
        case Kind.REWEIGH:
            member = network.members[which % len(network.members)]
            member.priority, member.weight = which % 2, which % 5
        case Kind.BAD_CERTIFICATE:
            network.members[which % len(network.members)].certified = False
        case Kind.ENROL:
            network.enrol(which, now)
        case Kind.EXPEL:
            network.expel(which, now)
        case Kind.OTHER_CLUSTER:
            network.members[which % len(network.members)].other_cluster = True
        case Kind.CUT_OFF:
            network.cut_off(which)
        case Kind.AFAR:
            network.members[which % len(network.members)].afar = True
        case Kind.WALL_JUMP:
            world.wall_s += (much - 0.5) * 1e6
        case Kind.NO_SOCKETS:
            world.no_sockets_until = now + 5.0 * much
        case kind if kind in DISORDERS:
            for server in network.servers if which % 3 else network.servers[:1]:
                server.disorder = kind
