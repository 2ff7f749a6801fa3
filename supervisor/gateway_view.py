"""The gateway's view of itself, made from the parts of the master whenever somebody asks for it.

The status document, the page and the metrics are made from the view; the service manager gets one
line.
"""

from __future__ import annotations

import dataclasses
import os
import socket

from gateway.sessions import leg
from supervisor import __version__
from supervisor.core.admin.readiness import summary_of, unreadiness_of
from supervisor.core.admin.views import GatewayView
from supervisor.core.effective import to_document
from supervisor.core.workers.worker_id import WorkerId
from supervisor.parts import Parts
from supervisor.system import limits
from supervisor.system.machine import pid_namespace

COMPILED = not str(leg.__file__).endswith((".py", ".pyc"))
"""The relay was compiled when the program was installed (docs/adr/0039)."""


def make_view(parts: Parts) -> GatewayView:
    """The whole gateway at this moment, also while it starts or drains."""
    pool, port_monitor, totals = parts.pool, parts.port_monitor, parts.totals
    slots = pool.wanted if pool else parts.plan_workers()
    return GatewayView(
        version=__version__,
        compiled=COMPILED,
        pid=os.getpid(),
        pid_namespace=pid_namespace(),
        started_at=parts.uptime.started_at,
        uptime_s=parts.uptime.seconds(),
        host=socket.gethostname(),
        started=parts.ready,
        draining=parts.shutdown.draining,
        drain_deadline_s=parts.shutdown.deadline_s(parts.loop.time()),
        slots=slots,
        listen=tuple(str(address) for address in parts.listen),
        snapshot_version=parts.roster.version,
        discovery=parts.discovery_loop.view,
        reload=parts.reloader.view,
        endpoints=parts.endpoints.views(),
        workers=tuple(
            dataclasses.replace(
                each,
                sessions=totals.worker_sessions(who := WorkerId(each.slot, each.gen)),
                sessions_total=totals.worker_sessions_total(who),
            )
            for each in (pool.view() if pool else ())
        ),
        sums=totals.sums(),
        worker_restarts=parts.worker_restarts,
        events=parts.events.all(),
        configuration=to_document(parts.config.effective),
        foreign_listeners=port_monitor.foreign_listeners if port_monitor else (),
        limits={
            "workers": slots,
            "max_sessions": parts.config.max_sessions,
            "open_files": limits.open_files(),
        },
    )


def find_unreadiness(parts: Parts) -> tuple[str, ...]:
    """Why clients should be sent elsewhere, without the cost of a whole view."""
    pool = parts.pool
    return unreadiness_of(
        parts.endpoints.cut_off(),
        pool.view() if pool else (),
        slots=pool.wanted if pool else parts.plan_workers(),
        started=parts.ready,
        draining=parts.shutdown.draining,
    )


def summarize(parts: Parts) -> str:
    """The gateway in one line, without the cost of a whole view."""
    port_monitor = parts.port_monitor
    return summary_of(
        [member.state for member in parts.roster.members],
        parts.pool.view() if parts.pool else (),
        parts.totals.live_sessions,
        foreign_listeners=port_monitor is not None and bool(port_monitor.foreign_listeners),
    )
