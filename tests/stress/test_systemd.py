"""The shipped unit under a real systemd, with the package installed as operators have it.

Where no systemd can be booted, ``test_service_manager`` shows the same with an emulator.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import trustme

from tests.clients import talk
from tests.long_tests import LONG, long
from tests.stress.field import HOST, PORT, Field, answer_still, prepared
from tests.stress.machine import REPOSITORY, UNIT, Machine, booted, why_not
from tests.stress.test_disturbances import RATE, SECONDS, check, check_lost, needs_namespaces
from tests.support import wait_until
from tests.unix_clients import Load, connect

TIMES = 6 if LONG else 3
CONFIG = "/etc/etcd-gateway.toml"
SETTINGS = {
    "LISTEN_ADDR": f"{HOST}:{PORT}",
    "WORKERS": "4",
    "CONFIG_FILE": CONFIG,
    "DRAIN_TIMEOUT": "60s",
}

pytestmark = [
    pytest.mark.slow(seconds=7),
    needs_namespaces,
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    """An endpoint, 20 ms away from the client."""
    with prepared(tmp_path_factory.mktemp("field"), 0.010) as ground:
        yield ground


@pytest.fixture(scope="module")
def booted_machine(ground: Field) -> Iterator[Machine]:
    with booted(ground.folder, ground.far, SETTINGS) as machine:
        ground.admin = machine.path("/run/etcd-gateway/admin.sock")
        yield machine


@pytest.fixture
def machine(booted_machine: Machine) -> Iterator[Machine]:
    """With the unit as it is shipped, stopped."""
    configure(booted_machine, ["127.0.0.1:2379"])
    set_flags(booted_machine, SETTINGS)
    booted_machine.use()
    yield booted_machine
    booted_machine.ctl("stop", UNIT)
    booted_machine.run("systemctl", "kill", "--kill-whom=all", "-s", "KILL", UNIT, check=False)
    booted_machine.run("systemctl", "reset-failed", UNIT, check=False)
    wait_until(lambda: processes(booted_machine) == [], 10, "nothing is left of the unit")


def set_flags(machine: Machine, flags: dict[str, str]) -> None:
    text = "".join(f"GATEWAY_{name}={value}\n" for name, value in flags.items())
    machine.path("/etc/default/etcd-gateway").write_text(text)


def configure(machine: Machine, endpoints: list[str]) -> None:
    machine.path(CONFIG).write_text(f"endpoints = {endpoints}\n")


def processes(machine: Machine) -> list[int]:
    """Of the unit; their ids as we see them."""
    group = machine.path(f"/sys/fs/cgroup/system.slice/{UNIT}/cgroup.procs")
    try:
        return [int(pid) for pid in group.read_text().split()]
    except OSError:  # removed with its last process
        return []


def shows(machine: Machine, name: str, what: str) -> bool:
    return what in machine.show(name)


def is_ready_again(machine: Machine, before: str) -> bool:
    """Whether another master than this serves."""
    return machine.show("MainPID") not in ("0", before) and machine.show("SubState") == "running"


def restart(machine: Machine) -> None:
    machine.ctl("restart", UNIT)


def kill_master(machine: Machine) -> None:
    before = machine.show("MainPID")
    machine.ctl("kill", "--kill-whom=main", "-s", "KILL", UNIT)
    wait_until(partial(is_ready_again, machine, before), 20, "the next master is ready")


def upgrade(machine: Machine, ground: Field) -> None:
    before = {each["pid"] for each in ground.workers()}
    machine.ctl("kill", "--kill-whom=main", "-s", "USR2", UNIT)
    wait_until(partial(ground.is_replaced, before), 20, "new workers serve")


@pytest.mark.parametrize("what", ["kill -9 of the master", long("restart"), long("USR2")])
def test_nothing_is_lost_on_a_unix_socket(machine: Machine, ground: Field, what: str) -> None:
    """One queue for all workers, which the store keeps: no client of the socket is lost."""
    disturbances: dict[str, Callable[[], None]] = {
        "restart": partial(restart, machine),
        "kill -9 of the master": partial(kill_master, machine),
        "USR2": partial(upgrade, machine, ground),
    }
    inside = "/run/etcd-clients/gateway.sock"
    listen = f"unix:{inside},mode=0660,group=etcd-clients,{HOST}:{PORT},unix:@client"
    set_flags(machine, {**SETTINGS, "LISTEN_ADDR": listen})
    machine.use("no-capabilities")
    give_clients_a_directory(machine)
    machine.ctl("start", UNIT)
    wait_until(ground.is_ready)
    path = machine.path(inside)
    made = path.stat().st_ino
    group = int(machine.run("getent", "group", "etcd-clients").split(":")[2])
    assert (path.stat().st_gid, stat.S_IMODE(path.stat().st_mode)) == (group, 0o660)
    with Load(str(path), answer=b"!hello\n") as load:
        for _ in range(TIMES):
            with connect(str(path), 30) as session:
                assert session.recv(1) == b"!"
                disturbances[what]()
                wait_until(partial(served_more, load, load.served + 20), 20)
                talk(session, b"still here\n")
    assert load.lost == []
    assert path.stat().st_ino == made
    assert ground.status()["listen"] == [f"unix:{inside}", f"{HOST}:{PORT}", "unix:@client"]
    machine.ctl("stop", UNIT)
    wait_until(partial(refuses_at, str(path)), 10, "nobody accepts after the stop")


def give_clients_a_directory(machine: Machine) -> None:
    """As the page of the units says."""
    machine.run("groupadd", "--system", "--force", "etcd-clients")
    machine.run("install", "-d", "-m", "2770", "-g", "etcd-clients", "/run/etcd-clients")
    machine.path("/run/systemd/system/etcd-gateway.service.d/clients.conf").write_text(
        "[Service]\nSupplementaryGroups=etcd-clients\nReadWritePaths=/run/etcd-clients\n"
    )
    machine.ctl("daemon-reload")


def refuses_at(path: str) -> bool:
    try:
        connect(path).close()
    except ConnectionRefusedError:
        return True
    return False


def served_more(load: Load, than: int) -> bool:
    return load.served > than


def test_start_and_status(machine: Machine, ground: Field) -> None:
    """systemctl start returns when clients can connect, and systemctl status says how it goes."""
    machine.ctl("start", UNIT)
    with ground.long_sessions(3):
        assert machine.show("StatusText").startswith("1/1 endpoints active, 4 workers")
        wait_until(partial(shows, machine, "StatusText", "4 workers, 3 sessions"))


def test_reload_waits_and_tells(machine: Machine, ground: Field) -> None:
    """When systemctl reload returns, the new configuration is in use; a bad one fails it."""
    machine.ctl("start", UNIT)
    wait_until(ground.is_ready)
    workers = {each["pid"] for each in ground.workers()}
    for number in range(5):
        configure(machine, ["127.0.0.1:2379", f"127.0.0.1:{3000 + number}"])
        machine.ctl("reload", UNIT)
        found = [each["endpoint"] for each in ground.status()["endpoints"]]
        assert f"127.0.0.1:{3000 + number}" in found
        assert machine.show("ActiveState") == "active"
    machine.path(CONFIG).write_text("endpoints = 5\n")
    with pytest.raises(AssertionError):
        machine.ctl("reload", UNIT)
    wait_until(partial(shows, machine, "StatusText", "reload failed"))
    assert machine.show("ActiveState") == "active"
    assert {each["pid"] for each in ground.workers()} == workers


def test_the_config_file_moves_the_admin_address(machine: Machine, ground: Field) -> None:
    """The admin address of the unit is a default: the config file has the last word."""
    machine.path(CONFIG).write_text(
        'endpoints = ["127.0.0.1:2379"]\nadmin-addr = ["unix:/run/etcd-gateway/other.sock"]\n'
    )
    machine.ctl("start", UNIT)
    assert not machine.path("/run/etcd-gateway/admin.sock").exists()
    argv = ["etcd-gateway", "status", "--admin-addr=unix:/run/etcd-gateway/other.sock"]
    assert "127.0.0.1:2379" in machine.run(*argv)
    machine.ctl("reload", UNIT)


def is_served_at(machine: Machine, folder: str) -> bool:
    """Whether a gateway answers at the admin address in this folder of /run."""
    argv = ("etcd-gateway", "status", f"--admin-addr=unix:/run/{folder}/admin.sock")
    return machine.run(*argv, check=False).startswith("ready: ")


def test_instances_beside_the_unit(machine: Machine) -> None:
    """Whichever starts or stops first, the others start, answer, and reload."""
    template = REPOSITORY / "deploy/systemd/etcd-gateway@.service"
    shutil.copy(template, machine.path("/run/systemd/system"))
    machine.path("/etc/etcd-gateway").mkdir(exist_ok=True)
    odd = machine.run("systemd-escape", "odd name-1/\u00fc:")
    for port, name in enumerate(("blue", odd), 24001):
        text = f'endpoints = ["127.0.0.1:2379"]\nlisten-addr = "127.0.0.1:{port}"\nworkers = 1\n'
        machine.path(f"/etc/etcd-gateway/{name}.toml").write_text(text)
    machine.run("chmod", "-R", "go=rX", "/etc/etcd-gateway")  # another test takes that away
    machine.ctl("daemon-reload")
    units = {"blue": "etcd-gateway@blue", "odd": f"etcd-gateway@{odd}", "plain": "etcd-gateway"}
    try:
        for order in (("blue", "plain", "odd"), ("plain", "odd", "blue")):
            for name in order:
                machine.ctl("start", units[name])
            for name in order:
                for left in order[order.index(name) :]:
                    # Without a CPU for a moment, its only worker is not ready for so long.
                    folder, what = units[left], f"{left} of {order} is ready, {name} is next"
                    wait_until(partial(is_served_at, machine, folder), 30, what)
                    machine.ctl("reload", units[left])
                machine.ctl("stop", units[name])
    finally:
        machine.ctl("stop", *units.values())


def test_files_that_only_root_may_read(machine: Machine, ground: Field) -> None:
    """With credentials.conf the CA, the key, its certificate and the config file are read."""
    authority = trustme.CA()
    client = authority.issue_cert("gateway")
    folder = machine.path("/etc/etcd-gateway")
    folder.mkdir(exist_ok=True)
    (folder / "ca.pem").write_bytes(authority.cert_pem.bytes())
    (folder / "probe.pem").write_bytes(client.cert_chain_pems[0].bytes())
    (folder / "probe.key").write_bytes(client.private_key_pem.bytes())
    machine.run("chmod", "-R", "go=", "/etc/etcd-gateway", CONFIG)
    try:
        machine.use("credentials")
        machine.ctl("start", UNIT)
        with ground.long_sessions(3):
            pass
        # The config file alone names the endpoint; a file that cannot be read refuses the start.
        assert [each["endpoint"] for each in ground.status()["endpoints"]] == ["127.0.0.1:2379"]
        machine.ctl("reload", UNIT)
    finally:
        machine.path(CONFIG).unlink()


def test_a_start_that_fails_is_tried_once_a_second(machine: Machine) -> None:
    """Under the unit as shipped a taken address does not fill the journal."""
    assert machine.show("RestartUSec") == "1s"


@pytest.mark.parametrize("what", ["restart", "USR2", long("kill -9 of the master")])
def test_nothing_is_lost(machine: Machine, ground: Field, what: str) -> None:
    """Neither a client nor one of 40 long sessions is lost, whatever replaces the master."""
    disturbances: dict[str, Callable[[], None]] = {
        "restart": partial(restart, machine),
        "kill -9 of the master": partial(kill_master, machine),
        "USR2": partial(upgrade, machine, ground),
    }
    machine.ctl("start", UNIT)
    wait_until(ground.is_ready)
    with ground.long_sessions(40) as sessions:
        client = ground.client(RATE, SECONDS)
        for _ in range(TIMES):
            disturbances[what]()
        check(ground, client)
        assert answer_still(sessions)
    wait_until(lambda: len(processes(machine)) == 5, 25, "the old workers left")


@pytest.mark.timeout(600)
def test_a_master_that_crashes_every_three_seconds(machine: Machine, ground: Field) -> None:
    """No client is lost or refused, no session is cut, and the workers are the same throughout.

    Under the shipped unit, with its drain timeout shorter than the test.
    """
    seconds = 300.0 if LONG else 12.0
    set_flags(machine, SETTINGS | {"DRAIN_TIMEOUT": "3s"})
    machine.ctl("start", UNIT)
    wait_until(ground.is_ready)
    workers = {each["pid"] for each in ground.workers()}
    with ground.long_sessions(40) as sessions:
        client = ground.client(RATE / 3, seconds)
        neighbour = ground.client(RATE / 10, seconds, netns=ground.far)
        kills = 0
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            due = time.monotonic() + 3.0
            kill_master(machine)
            kills += 1
            time.sleep(max(due - time.monotonic(), 0.0))
        print(kills, "crashes")
        for each in (client, neighbour):
            check_lost(ground, each)
        assert answer_still(sessions)
    wait_until(ground.is_ready)
    assert {each["pid"] for each in ground.workers()} == workers


def test_stop_closes_the_address_and_drains(machine: Machine, ground: Field) -> None:
    """systemctl stop refuses new clients at once; a session may go on, its worker with it."""
    machine.ctl("start", UNIT)
    with ground.long_sessions(1) as (session,):
        machine.ctl("stop", UNIT)
        wait_until(lambda: refuses(ground), 5, "the listen address is closed")
        assert answer_still([session])
    wait_until(lambda: processes(machine) == [], 10, "the last worker left")


def refuses(ground: Field) -> bool:
    try:
        with ground.long_sessions(1):
            return False
    except subprocess.CalledProcessError:
        return True


def test_the_watchdog_replaces_a_master_that_hangs(machine: Machine, ground: Field) -> None:
    """A stopped master is killed; clients and sessions do not notice."""
    drop_in = machine.path("/run/systemd/system/etcd-gateway.service.d/quick.conf")
    drop_in.write_text("[Service]\nWatchdogSec=2\n")
    machine.ctl("daemon-reload")
    machine.ctl("start", UNIT)
    before = machine.show("MainPID")
    with ground.long_sessions(10) as sessions:
        client = ground.client(RATE, SECONDS)
        machine.ctl("kill", "--kill-whom=main", "-s", "STOP", UNIT)
        wait_until(partial(is_ready_again, machine, before), 30, "the next master is ready")
        check(ground, client)
        assert answer_still(sessions)
    assert "watchdog" in machine.journal(200).lower()


@pytest.mark.parametrize(
    ("drop_ins", "most"),
    [((), 1.6), (("no-capabilities",), 1.4), (("no-capabilities", "pin-workers"), 1.5)],
)
def test_hardening(machine: Machine, ground: Field, drop_ins: tuple[str, ...], most: float) -> None:
    """The unit gets along with next to nothing, and still serves."""
    machine.use(*drop_ins)
    text = machine.run("systemd-analyze", "security", "--no-pager", UNIT, check=False)
    exposure = float(text.rpartition("exposure level for ")[2].split()[1])
    assert exposure <= most, text
    machine.ctl("start", UNIT)
    with ground.long_sessions(8):
        workers = [pid for pid in processes(machine) if b"worker" in comm(pid)]
        assert len(workers) == 4
        for pid in workers:
            assert os.stat(f"/proc/{pid}").st_uid != 0
            if "no-capabilities" in drop_ins:
                assert capabilities(pid) == 0
        if "pin-workers" in drop_ins:
            assert all(len(os.sched_getaffinity(pid)) == 1 for pid in workers)
    machine.ctl("reload", UNIT)
    # The sockets that were made under one user id serve under the next.
    machine.ctl("restart", UNIT)
    with ground.long_sessions(8):
        pass


def comm(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def capabilities(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("CapEff:")[2].split()[0], 16)


def test_it_is_refused_where_another_program_listens(machine: Machine, ground: Field) -> None:
    """The start fails and steals nothing from another program on the listen address."""
    script = (
        "import socket,sys\n"
        f"s=socket.create_server(('{HOST}',{PORT}),reuse_port=True)\n"
        "print('up',flush=True)\nsys.stdin.read()"
    )
    argv = ["nsenter", "-t", str(machine.pid), "-a", "-r", "-w", "/opt/python/bin/python3"]
    with subprocess.Popen(
        [*argv, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "up\n"
        with pytest.raises(AssertionError, match="already"):
            machine.ctl("start", UNIT)
        other.communicate()
