"""What the next master knows, under a service manager that keeps descriptors."""

from __future__ import annotations

import contextlib
import datetime
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from supervisor.cli.admin_client import UnreachableError, fetch_status
from supervisor.core.workers.worker_id import WorkerId
from supervisor.handover.record import RECORD_NAME
from supervisor.handover.state import read_state
from tests.backends import Backend, echo
from tests.clients import connect, echoes, talk
from tests.dns import Fault, NameServer
from tests.etcd import Cluster, needs_etcd
from tests.etcd_answers import insist_put
from tests.gateway import COMMAND
from tests.stress.manager import Manager
from tests.support import free_port
from tests.tls import Authority, LateHandshake, Server

pytestmark = pytest.mark.timeout(300)


class Managed:
    """A gateway whose master can crash; its status is asked while the manager is served."""

    def __init__(self, folder: Path, *flags: str, listen: str = "127.0.0.1") -> None:
        self.address = ("127.0.0.1", free_port())
        self.admin = f"unix:{folder}/admin"
        argv = [*COMMAND, "start", f"--listen-addr={listen}:{self.address[1]}"]
        argv += [f"--admin-addr={self.admin}", "--handover", "--log-format=json", *flags]
        self.manager = Manager(folder, argv, folder / "log", patience_s=60.0)

    def until(self, predicate: Callable[[dict[str, Any]], object]) -> None:
        """Wait for a status."""

        def is_so() -> bool:
            try:
                return bool(predicate(fetch_status([self.admin])))
            except (UnreachableError, OSError):
                return False

        self.manager.until(is_so, 60)

    def signal(self, number: signal.Signals) -> None:
        """To the master."""
        assert self.manager.main is not None
        self.manager.main.send_signal(number)

    def crash(self) -> None:
        """SIGKILL of the master, as the kernel would for memory; and the next one."""
        self.manager.end_main(signal.SIGKILL)
        self.manager.start()

    def restart(self) -> None:
        """As the service manager does it."""
        self.manager.end_main(signal.SIGTERM)
        self.manager.start()


@contextlib.contextmanager
def managed(folder: Path, *flags: str) -> Iterator[Managed]:
    gateway = Managed(folder, *flags)
    try:
        gateway.manager.start()
        yield gateway
    finally:
        gateway.manager.stop()


@contextlib.contextmanager
def echoing(folder: Path, *flags: str) -> Iterator[Managed]:
    """One that serves an echo."""
    with Backend(echo) as backend, managed(folder, f"--endpoints={backend.address}", *flags) as it:
        yield it


def count_ready(document: dict[str, Any]) -> int:
    return [each["state"] for each in document["workers"]].count("ready")


def states(document: dict[str, Any]) -> dict[str, str]:
    """Of the endpoints, by port."""
    return {each["endpoint"].rpartition(":")[2]: each["state"] for each in document["endpoints"]}


def test_workers_that_a_signal_added_or_removed_are_as_many_after_a_crash(tmp_path: Path) -> None:
    """TTIN and TTOU are remembered when they were carried out, not when something else happens."""
    with echoing(tmp_path, "--workers=2") as gateway:
        for number, wanted in ((signal.SIGTTIN, 3), (signal.SIGTTOU, 2), (signal.SIGTTOU, 1)):
            gateway.signal(number)
            gateway.until(lambda status, wanted=wanted: count_ready(status) == wanted)  # type: ignore[misc]
            gateway.crash()
            gateway.until(lambda status, wanted=wanted: count_ready(status) == wanted)  # type: ignore[misc]
            assert echoes(gateway.address, 10)


def test_sessions_of_a_worker_are_known_before_it_reports_to_the_next_master(
    tmp_path: Path,
) -> None:
    """A crash of the master does not make them none, not even for the second until a report."""
    with echoing(tmp_path, "--workers=1") as gateway:
        gateway.until(lambda status: count_ready(status) == 1)
        with connect(gateway.address) as client:
            talk(client, b"a")
            gateway.until(lambda status: status["totals"]["sessions"] == 1)
            (worker,) = fetch_status([gateway.admin])["workers"]
            os.kill(worker["pid"], signal.SIGSTOP)
            try:
                gateway.crash()
                gateway.until(
                    lambda status: [each["sessions"] for each in status["workers"]] == [1]
                )
                gateway.until(lambda status: status["totals"]["sessions"] == 1)
            finally:
                os.kill(worker["pid"], signal.SIGCONT)
            gateway.until(lambda status: status["workers"][0]["heartbeat_age_s"] is not None)


@needs_etcd
def test_an_adopted_member_list_outlives_a_crash(tmp_path: Path) -> None:
    """The seed is no member any more and answers nobody; the next master goes on with the list."""
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(Cluster())
        seed = cluster.endpoints[0]
        gateway = stack.enter_context(
            managed(
                tmp_path,
                *("--workers=1", "--member-sync=1s", "--removal-grace=1s"),
                f"--endpoints={seed}",
            )
        )

        def used(status: dict[str, Any]) -> set[str]:
            return {e["endpoint"] for e in status["endpoints"] if e["state"] != "removed"}

        gateway.until(lambda status: used(status) == set(cluster.endpoints))
        cluster.remove(0)
        left = set(cluster.endpoints[1:])
        gateway.until(lambda status: used(status) == left)
        gateway.crash()
        gateway.until(lambda status: status["discovery"]["member_sync"]["cluster_id"])
        gateway.until(lambda status: used(status) == left)
        insist_put(cluster, f"127.0.0.1:{gateway.address[1]}", "a", "b")


@needs_etcd
@pytest.mark.slow
@pytest.mark.parametrize("way", ["crash", "upgrade"])
def test_the_member_list_outlives_a_dns_that_denies_everything(tmp_path: Path, way: str) -> None:
    """No endpoint is left, the master is replaced, and the names of the list are still followed."""
    with contextlib.ExitStack() as stack:
        ns = stack.enter_context(NameServer())
        cluster = stack.enter_context(Cluster(announced="infra.example.test"))
        ports = cluster.client_ports
        ns.set("infra.example.test", "A", "127.0.0.1", ttl=1)
        ns.set("seed.example.test", "A", "127.0.0.1", ttl=1)
        gateway = stack.enter_context(
            managed(
                tmp_path,
                *("--workers=1", "--member-sync=1s", "--removal-grace=1s"),
                *(f"--endpoints=seed.example.test:{ports[0]}", f"--nameserver={ns.address}"),
            )
        )

        def used(status: dict[str, Any]) -> set[str]:
            return {e["endpoint"] for e in status["endpoints"] if e["state"] != "removed"}

        members = {f"infra.example.test:{port}" for port in ports}
        gateway.until(lambda status: len(used(status)) == 3)  # one under the seed's name
        ns.faults[""] = Fault.NXDOMAIN
        gateway.until(lambda status: used(status) == set())
        if way == "crash":
            gateway.crash()
        else:
            gateway.signal(signal.SIGUSR2)
            ready = "ready to proxy client requests"
            log = tmp_path / "log"
            gateway.manager.until(lambda: log.read_text().count(ready) == 2, 60)
        gateway.until(lambda status: status["discovery"]["member_sync"]["members"])
        ns.faults = {"seed.example.test": Fault.NXDOMAIN}
        gateway.until(lambda status: used(status) == members)
        put = cluster.ctl(f"127.0.0.1:{gateway.address[1]}", "put", "a", "b")
        assert put.returncode == 0, put.stderr


@pytest.mark.slow
def test_who_is_in_grace_stays_so_after_a_crash(tmp_path: Path) -> None:
    """Also if DNS had denied every endpoint by then, and the next master finds only others."""
    with contextlib.ExitStack() as stack:
        ns = stack.enter_context(NameServer())
        old, new = (stack.enter_context(Backend(echo)) for _ in range(2))
        ns.set("host.example.test", "A", "127.0.0.1")

        def publish(backend: Backend) -> None:
            record = f"0 0 {backend.port} host.example.test."
            ns.set("_etcd-client._tcp.example.test", "SRV", record, ttl=1)

        publish(old)
        gateway = stack.enter_context(
            managed(
                tmp_path,
                *("--workers=1", "--discovery-srv=example.test", "--insecure-discovery"),
                *(f"--nameserver={ns.address}", "--removal-grace=40s"),
            )
        )
        session = stack.enter_context(connect(gateway.address))
        talk(session, b"a")
        ns.faults[""] = Fault.NXDOMAIN
        gateway.until(lambda status: states(status) == {str(old.port): "removed"})
        gateway.manager.end_main(signal.SIGKILL)
        ns.faults.clear()
        publish(new)
        gateway.manager.start()
        gateway.until(lambda status: states(status).get(str(new.port)) == "active")
        until = time.monotonic() + 3  # what would be cut is cut within moments
        while time.monotonic() < until:
            talk(session, b"b")
            gateway.manager.serve()
            time.sleep(0.1)


def test_a_restart_goes_on_with_the_endpoints_while_dns_is_silent(tmp_path: Path) -> None:
    """Or says that there are none: what was found before stays as it does without a restart."""
    with contextlib.ExitStack() as stack:
        ns = stack.enter_context(NameServer())
        backend = stack.enter_context(Backend(echo))
        ns.set("host.example.test", "A", "127.0.0.1", ttl=1)
        ns.set("here.example.test", "A", "127.0.0.1", ttl=1)
        gateway = Managed(
            tmp_path,
            *("--workers=1", f"--endpoints=host.example.test:{backend.port}"),
            *(f"--nameserver={ns.address}", "--removal-grace=600s"),
            listen="here.example.test",
        )
        stack.callback(gateway.manager.stop)
        gateway.manager.start()
        for fault in (Fault.SERVFAIL, Fault.NXDOMAIN):
            ns.faults = {"": Fault.SERVFAIL, "host.example.test": fault}
            gateway.restart()
            assert echoes(gateway.address, 10)
            gateway.until(lambda status: status["discovery"]["last_error"])
            gateway.until(lambda status: states(status) == {str(backend.port): "active"})


def test_a_restart_with_another_configuration_forgets_the_endpoints(tmp_path: Path) -> None:
    """Those of before are served by the workers of before, until DNS knows the new ones.

    Then they keep the sessions that they have.
    """
    with contextlib.ExitStack() as stack:
        ns = stack.enter_context(NameServer())
        old, new = (stack.enter_context(Backend(echo)) for _ in range(2))
        for name in ("old", "new"):
            ns.set(f"{name}.example.test", "A", "127.0.0.1", ttl=1)
        config = tmp_path / "gateway.toml"
        config.write_text(f'endpoints = ["old.example.test:{old.port}"]\n')
        flags = ("--workers=1", f"--nameserver={ns.address}", f"--config-file={config}")
        gateway = stack.enter_context(managed(tmp_path, *flags))
        session = stack.enter_context(socket.create_connection(gateway.address, 20))
        talk(session, b"here")
        config.write_text(f'endpoints = ["new.example.test:{new.port}"]\n')
        ns.faults[""] = Fault.SERVFAIL
        gateway.manager.end_main(signal.SIGTERM)
        gateway.manager.launch()
        gateway.until(lambda status: status["state"] == "starting")
        assert echoes(gateway.address, 10)
        served = old.connections
        assert served
        ns.faults.clear()
        gateway.manager.until(lambda: gateway.manager.ready, 60)
        assert echoes(gateway.address, 10)
        assert (old.connections, new.connections > 0) == (served, True)
        gateway.until(lambda status: count_ready(status) == 1)
        talk(session, b"still there")
        gateway.until(
            lambda status: states(status) == {str(new.port): "active", str(old.port): "removed"}
        )


def test_a_master_that_leaves_says_nothing_of_a_drain(tmp_path: Path) -> None:
    """The sessions go on in the workers; whoever looks for "drained" waits for their end."""
    with echoing(tmp_path) as gateway:
        gateway.manager.end_main(signal.SIGTERM)
        assert "leaving, the workers go on" in gateway.manager.log.read_text()
        assert '"drained"' not in gateway.manager.log.read_text()
        gateway.manager.start()
        gateway.manager.end_main(signal.SIGINT)
        assert '"drained"' in gateway.manager.log.read_text()


def test_a_restart_begins_with_the_workers_of_its_configuration(tmp_path: Path) -> None:
    """TTIN counts until somebody restarts the gateway."""
    with echoing(tmp_path, "--workers=1") as gateway:
        gateway.signal(signal.SIGTTIN)
        gateway.until(lambda status: count_ready(status) == 2)
        gateway.restart()
        gateway.until(lambda status: count_ready(status) == 1)
        assert echoes(gateway.address, 10)


def test_a_crash_replaces_workers_that_were_forked_with_other_flags(tmp_path: Path) -> None:
    """A worker keeps its CPU and its log format for life; somebody edited the file meanwhile."""
    with Backend(echo) as backend:
        config = tmp_path / "gateway.toml"
        text = f'workers = 1\nendpoints = ["{backend.address}"]\n'
        config.write_text(text)
        with managed(tmp_path, f"--config-file={config}") as gateway:
            pids: list[int] = []

            def serves_alone(status: dict[str, Any]) -> bool:
                """Notes the pid of the one worker that there is."""
                if [each["state"] for each in status["workers"]] != ["ready"]:
                    return False
                pids.append(status["workers"][0]["pid"])
                return True

            gateway.until(serves_alone)
            for edited in (False, True, False):
                if edited:
                    config.write_text(f"{text}pin-workers = true\n")
                gateway.crash()
                gateway.until(serves_alone)
            assert pids[0] == pids[1] != pids[2] == pids[3]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_each_master_leaves_one_record(tmp_path: Path, number: signal.Signals) -> None:
    """The next one knows what the last one knew, and nothing that is older."""
    with contextlib.ExitStack() as stack:
        ns = stack.enter_context(NameServer())
        backend = stack.enter_context(Backend(echo))
        ns.set("host.example.test", "A", "127.0.0.1", ttl=1)
        ns.set("more.example.test", "A", "127.0.0.1", ttl=1)
        records = [f"0 0 {backend.port} {name}.example.test." for name in ("host", "more")]
        ns.set("_etcd-client._tcp.example.test", "SRV", records[0], ttl=1)
        flags = ("--workers=1", f"--nameserver={ns.address}", "--discovery-srv=example.test")
        gateway = stack.enter_context(managed(tmp_path, *flags, "--insecure-discovery"))
        gateway.manager.end_main(number)
        gateway.manager.start()
        ns.set("_etcd-client._tcp.example.test", "SRV", *records, ttl=1)
        gateway.until(lambda status: len(status["endpoints"]) == 2)
        ns.faults[""] = Fault.SERVFAIL
        gateway.manager.end_main(number)
        gateway.manager.start()
        gateway.until(lambda status: len(status["endpoints"]) == 2)
        gateway.manager.serve()
        assert [name for name, _ in gateway.manager.stored].count(RECORD_NAME) == 1


def test_a_record_is_no_older_than_the_last_master(tmp_path: Path) -> None:
    """One that was started without --handover leaves none, and none of before is left."""
    with echoing(tmp_path, "--workers=1") as gateway:
        gateway.manager.end_main(signal.SIGTERM)
        gateway.manager.argv = [each for each in gateway.manager.argv if each != "--handover"]
        gateway.manager.start()
        gateway.manager.serve()
        assert RECORD_NAME not in [name for name, _ in gateway.manager.stored]
        assert echoes(gateway.address, 10)


def test_the_record_knows_who_drains(tmp_path: Path) -> None:
    """Else the next master takes one for a worker that serves, if its successor has just ended."""
    flags = ("--workers=1", "--drain-timeout=600s")
    with (
        Backend(echo) as backend,
        managed(tmp_path, *flags, f"--endpoints={backend.address}") as gateway,
        connect(gateway.address) as session,
    ):
        talk(session, b"a")
        gateway.restart()
        gateway.until(lambda status: len(status["workers"]) == 2)
        gateway.until(lambda status: count_ready(status) == 1)
        (record,) = [fd for name, fd in gateway.manager.stored if name == RECORD_NAME]
        gateway.manager.until(lambda: read_state(record).draining == (WorkerId(0, 1),))


def test_the_record_knows_of_a_worker_before_it_is_ready(tmp_path: Path) -> None:
    """No generation comes again, also not that of one which started when the master was killed."""
    with echoing(tmp_path, "--workers=1") as gateway:
        (record,) = [fd for name, fd in gateway.manager.stored if name == RECORD_NAME]
        assert read_state(record).gens == {0: 1}


def test_the_record_knows_what_the_log_has_said_of_certificates(tmp_path: Path) -> None:
    """Else it would say it again after each crash, because nothing else is recorded then."""
    authority = Authority(tmp_path)
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=3)
    leaf = authority.ca.issue_cert("127.0.0.1", not_after=end)
    late = LateHandshake(authority.context(certificate=leaf))
    with (
        Server(late) as server,
        managed(
            tmp_path,
            *("--workers=1", f"--endpoints=https://127.0.0.1:{server.port}"),
            *(f"--trusted-ca-file={authority.file}", "--health-timeout=60s"),
        ) as gateway,
    ):
        (record,) = [fd for name, fd in gateway.manager.stored if name == RECORD_NAME]
        assert not read_state(record).certificates
        late.go_on.set()
        gateway.manager.until(
            lambda: any(each.warned_at is not None for each in read_state(record).certificates)
        )


def crash_without(folder: Path, missing: Sequence[str]) -> None:
    """Kill a master with two listen addresses, and drop these from what is stored of it.

    The next one replaces all workers, and serves both addresses.
    """
    second = ("127.0.0.1", free_port())
    flags = ("--workers=2", f"--listen-addr=127.0.0.1:{second[1]}")
    with echoing(folder, *flags) as gateway:
        gateway.manager.end_main(signal.SIGKILL)
        for name in missing:
            gateway.manager.forget(name)
        gateway.manager.start()
        gateway.until(lambda status: {each["gen"] for each in status["workers"]} == {2})
        for address in (gateway.address, second) * 8:
            assert echoes(address, 10)


@pytest.mark.parametrize("missing", ["scoreboard", "inbox-r.0", "inbox-w.1", "listener.1.1"])
def test_a_crash_keeps_no_worker_without_all_its_sockets(tmp_path: Path, missing: str) -> None:
    """What the service manager did not keep is made anew, and only new workers know of it."""
    crash_without(tmp_path, [missing])


@pytest.mark.parametrize("lost", [(0, 1), (1,)])
def test_workers_whose_sockets_are_all_lost_are_replaced(
    tmp_path: Path, lost: tuple[int, ...]
) -> None:
    """The service manager kept no listener of an address: workers hold it until they leave."""
    crash_without(tmp_path, [f"listener.{slot}.{number}" for slot in (0, 1) for number in lost])


def test_an_upgrade_that_turns_handover_on_keeps_the_inboxes(tmp_path: Path) -> None:
    """Else after a crash clients would be handed to inboxes that no worker reads. One that turns it
    off leaves nothing of them, nor of the workers, for a master that would take them for alive."""
    config = tmp_path / "gateway.toml"
    config.write_text("handover = false\n")
    with echoing(tmp_path, "--workers=2") as gateway:
        manager = gateway.manager
        manager.end_main(signal.SIGINT)
        manager.forget_all()
        manager.argv = [each for each in manager.argv if each != "--handover"]
        manager.argv.append(f"--config-file={config}")
        manager.start()
        assert not any(name.startswith("inbox") for name, _ in manager.stored)
        config.write_text("handover = true\n")
        assert manager.main is not None
        manager.ready = False
        manager.main.send_signal(signal.SIGUSR2)
        manager.until(lambda: manager.ready, 60)
        inboxes = [name for name, _ in manager.stored if name.startswith("inbox")]
        assert sorted(inboxes) == ["inbox-r.0", "inbox-r.1", "inbox-w.0", "inbox-w.1"]
        gateway.crash()
        gateway.until(lambda status: {each["gen"] for each in status["workers"]} == {2})
        assert all(echoes(gateway.address, 10) for _ in range(8))
        config.write_text("handover = false\n")
        assert manager.main is not None
        manager.ready = False
        manager.main.send_signal(signal.SIGUSR2)
        manager.until(lambda: manager.ready, 60)
        kinds = {name.split(".")[0] for name, _ in manager.stored}
        assert kinds == {"listener", "scoreboard"}, "the workers of before have left, or will"


def test_a_crash_beside_a_file_that_cannot_be_used_ends_nothing(tmp_path: Path) -> None:
    """A start that nobody asked for waits until the file is mended; one that is asked for ends."""
    file = tmp_path / "gateway.toml"
    file.write_text("")
    with echoing(tmp_path, "--workers=1", f"--config-file={file}") as gateway:
        manager = gateway.manager
        manager.end_main(signal.SIGKILL)
        file.write_text("trusted-ca-file = ")
        main = manager.launch()
        manager.until(lambda: "trying again" in manager.log.read_text())
        assert echoes(gateway.address, 10)
        file.write_text("")
        main.send_signal(signal.SIGHUP)
        manager.until(lambda: manager.ready)
        assert echoes(gateway.address, 10)
        manager.end_main(signal.SIGKILL)
        file.write_text("trusted-ca-file = ")
        told = manager.log.read_text().count("trying again")
        manager.launch()
        manager.until(lambda: manager.log.read_text().count("trying again") > told)
        manager.end_main(signal.SIGTERM)
        assert manager.launch().wait(60) == 2
        file.write_text("")
        manager.start()
        assert echoes(gateway.address, 10)


def test_the_next_master_knows_how_the_last_reload_ended(tmp_path: Path) -> None:
    """Also if no endpoint changed with it."""
    config = tmp_path / "gateway.toml"
    config.write_text("")
    flags = ("--workers=1", f"--config-file={config}")
    with echoing(tmp_path, *flags) as gateway:
        for number, text, result in ((1, "", "complete"), (2, "nonsense = 1\n", "failed")):
            config.write_text(text)
            gateway.signal(signal.SIGHUP)
            gateway.until(lambda status, n=number: status["reload"]["number"] == n)  # type: ignore[misc]
            config.write_text("")
            gateway.crash()
            gateway.until(
                lambda status, n=number, r=result: (
                    (  # type: ignore[misc]
                        status["reload"]["number"],
                        status["reload"]["last_result"],
                    )
                    == (n, r)
                )
            )


def test_a_start_that_cannot_be_ends_where_nobody_serves(tmp_path: Path) -> None:
    """Also if the service manager has something left of the master before, which had drained."""
    with echoing(tmp_path, "--workers=1") as gateway:
        manager = gateway.manager
        manager.end_main(signal.SIGINT)
        assert manager.stored, "its inbox, for one"
        manager.argv = [*manager.argv, "--source-addr=192.0.2.77"]
        main = manager.launch()
        manager.until(lambda: main.poll() is not None, 60)
        assert main.returncode == 1
        assert "the old workers go on" not in manager.log.read_text()
