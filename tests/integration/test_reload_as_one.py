"""A reload that changes the endpoints and what is asked of them is one change for the workers."""

from __future__ import annotations

import asyncio
import json
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from gateway.core.address import HostPort
from gateway.core.endpoint import RETIRED
from gateway.core.messages import Snapshot
from supervisor.cli.admin_client import fetch_status
from supervisor.core.admin.totals import Totals
from supervisor.core.config import Config, StaticTarget
from supervisor.core.roster import Roster
from supervisor.discovery.loop import DiscoveryLoop
from supervisor.endpoint_tracker import EndpointTracker
from supervisor.system.shared_tls import SharedTls
from tests.backends import Backend, greet
from tests.clients import asked
from tests.gateway import running
from tests.logbook import Logbook
from tests.support import free_port

A, B = (StaticTarget(HostPort("127.0.0.1", port)) for port in (1, 2))
BOTH = Config(
    endpoints=(A, B),
    endpoints_given=True,
    drain_endpoints=("127.0.0.1:2",),
    health_check="off",
    removal_grace_s=0.0,
)
ONE = replace(BOTH, endpoints=(B,), drain_endpoints=(), dial_timeout_s=7.0)


@pytest.mark.parametrize(("before", "after"), [(BOTH, ONE), (ONE, BOTH)])
def test_every_snapshot_of_a_reload_has_an_endpoint_that_may_be_used(
    before: Config, after: Config
) -> None:
    """One endpoint leaves, the other one comes back from maintenance; and the other way round."""

    async def main() -> list[Snapshot]:
        log = Logbook()
        sent: list[Snapshot] = []
        tracker = EndpointTracker(
            asyncio.get_running_loop(),
            before,
            log,
            roster=Roster(),
            totals=Totals(),
            send=sent.append,
            record=lambda: None,
            shared_tls=SharedTls(log),
        )
        loop = DiscoveryLoop(before, log, tracker.on_found)
        await loop.start(())
        tracker.publish_from_now_on()
        await loop.reload(after, partial(tracker.reconfigure, after))
        await loop.close()
        await tracker.close()
        return sent

    snapshots = asyncio.run(main())
    assert [each.settings.dial_timeout_s for each in snapshots] == [after.dial_timeout_s]
    for snapshot in snapshots:
        assert [each.name for each in snapshot.endpoints if each.state not in RETIRED]


def test_no_client_is_refused_while_maintenance_moves_on(tmp_path: Path) -> None:
    """Each reload takes one of two endpoints out of the list and the other out of maintenance."""
    file, admin = tmp_path / "gateway.toml", f"127.0.0.1:{free_port()}"

    def write(endpoints: list[str], drained: list[str]) -> None:
        lines = {"endpoints": endpoints, "drain-endpoints": drained, "removal-grace": "1m"}
        file.write_text("".join(f"{key} = {json.dumps(lines[key])}\n" for key in lines))

    with Backend(greet, name="a") as a, Backend(greet, name="b") as b:
        both = [a.address, b.address]
        write(both, [b.address])
        flags = (f"--config-file={file}", f"--admin-addr={admin}", "--health-check=off")
        with running(*flags, workers=1) as gateway:
            gateway.wait_line("admin address is open")
            for count in range(1, 11):
                write(*(([b.address], []) if count % 2 else (both, [b.address])))
                gateway.signal(signal.SIGHUP)
                while len(gateway.lines("reload complete")) < count:
                    assert asked(gateway.address) in ("a", "b")
            assert fetch_status([admin])["totals"]["refused"] == 0


def test_a_reload_is_over_when_every_worker_uses_it(tmp_path: Path) -> None:
    """Whoever comes after `reload complete` is served as the new configuration says."""
    file, admin = tmp_path / "gateway.toml", f"127.0.0.1:{free_port()}"
    with Backend(greet, name="a") as a, Backend(greet, name="b") as b:
        endpoints = json.dumps([a.address, b.address])
        lines = f"endpoints = {endpoints}\nhealth-check = 'off'\nremoval-grace = '1m'\n"
        file.write_text(lines)
        with running(f"--config-file={file}", f"--admin-addr={admin}", workers=2) as gateway:
            gateway.wait_line("admin address is open")
            for count, line in enumerate(
                (
                    "allow = '192.0.2.0/24'",
                    "",
                    f"drain-endpoints = '{a.address}'",
                    "",
                    "prefer = '127.0.0.0/8'",
                ),
                start=1,
            ):
                file.write_text(lines + line)
                gateway.signal(signal.SIGHUP)
                gateway.wait_line("reload complete", count=count)
                status = fetch_status([admin])
                versions = {each["snapshot_version"] for each in status["workers"]}
                assert versions == {status["snapshot_version"]}, line
