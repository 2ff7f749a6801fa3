"""The check command: what it prints, and its exit code."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.core.address import HostPort
from supervisor.cli import check as check_command
from supervisor.cli.main import main
from supervisor.core.config import Config, StaticTarget
from supervisor.core.discovery.system_names import Files
from supervisor.system.connections import dial_as
from tests.dns import NameServer
from tests.gateway import COMMAND, environment, running
from tests.support import free_port
from tests.tls import Authority, Server, plaintext

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def ns() -> Iterator[NameServer]:
    with NameServer() as server:
        server.set("n1.test", "A", "127.0.0.1")
        yield server


@pytest.fixture
def files(tmp_path: Path) -> Files:
    (tmp_path / "empty").write_text("")
    return Files(str(tmp_path / "empty"), str(tmp_path / "empty"))


def static(*targets: str) -> Config:
    pairs = (target.rsplit(":", 1) for target in targets)
    endpoints = tuple(StaticTarget(HostPort(h, int(p))) for h, p in pairs)
    return Config(endpoints=endpoints, endpoints_given=True)


def test_one_good_endpoint_is_enough(files: Files, capsys: Capture) -> None:
    """With one endpoint that can be dialed the exit code is 0; the table names them all."""
    dead = free_port()
    with Server(plaintext) as backend:
        assert (
            check_command.run(static(f"127.0.0.1:{backend.port}", f"::1:{dead}"), files=files) == 0
        )
    out = capsys.readouterr().out
    assert "connected in" in out
    assert f"[::1]:{dead}" in out
    assert "connection refused" in out
    assert "1 of 2 endpoints can be used" in out


def test_no_endpoint_can_be_dialed(files: Files, ns: NameServer, capsys: Capture) -> None:
    """Without any the exit code is 69, and names that do not resolve are told."""
    config = static(f"127.0.0.1:{free_port()}", "gone.test:1")
    assert check_command.run(replace(config, nameserver=(ns.address,)), files=files) == 69
    assert "problem: host gone.test: NXDOMAIN" in capsys.readouterr().out


def test_json(files: Files, ns: NameServer, tmp_path: Path, capsys: Capture) -> None:
    """--json prints the same as a document: dials with their time, and who is left out."""
    authority = Authority(tmp_path)
    with Server(authority.context("test")) as good, Server(plaintext) as plain:
        ns.set("_etcd-client-ssl._tcp.test", "SRV", f"1 2 {good.port} n1.test.")
        ns.set("_etcd-client._tcp.test", "SRV", f"0 0 {plain.port} n1.test.", "0 0 1 no.test.")
        config = Config(
            discovery_srv="test", trusted_ca_file=authority.file, nameserver=(ns.address,)
        )
        assert check_command.run(config, as_json=True, files=files) == 0
    document = json.loads(capsys.readouterr().out)
    (endpoint,) = document["endpoints"]
    (dial,) = endpoint.pop("dials")
    assert endpoint == {
        "endpoint": f"n1.test:{good.port}",
        "source": "srv",
        "priority": 1,
        "weight": 2,
        "tls": True,
        "usable": True,
    }
    assert dial["address"] == "127.0.0.1"
    assert dial["time_s"] >= 0
    assert dial["error"] is None
    (left_out,) = document["left_out"]
    assert left_out["endpoint"] == f"n1.test:{plain.port}"
    assert "does not speak TLS" in left_out["reason"]
    assert document["problems"] == ["host no.test (SRV _etcd-client._tcp.test): NXDOMAIN"]
    assert document["usable"] == 1
    assert document["srv"] == "test"


def test_what_was_left_out_is_in_the_table(files: Files, ns: NameServer, capsys: Capture) -> None:
    """An endpoint that failed the TLS check is shown with the reason."""
    with Server(plaintext) as plain:
        ns.set("_etcd-client._tcp.test", "SRV", f"0 0 {plain.port} n1.test.")
        config = Config(discovery_srv="test", nameserver=(ns.address,))
        assert check_command.run(config, files=files) == 69
    assert "left out: does not speak TLS" in capsys.readouterr().out


def test_several_addresses_are_dialed(files: Files, ns: NameServer, capsys: Capture) -> None:
    """Every address of an endpoint is dialed; one that connects makes it usable."""
    ns.set("n1.test", "A", "127.0.0.1", "127.0.0.77")
    with Server(plaintext) as backend:
        config = replace(static(f"n1.test:{backend.port}"), nameserver=(ns.address,))
        assert check_command.run(config, as_json=True, files=files) == 0
    (endpoint,) = json.loads(capsys.readouterr().out)["endpoints"]
    assert [dial["error"] for dial in endpoint["dials"]] == [None, "connection refused"]


def test_a_loop_is_wrong_usage(files: Files, capfd: Capture) -> None:
    """An endpoint that is our own listen address is wrong usage: exit code 2, one line."""
    assert check_command.run(static("127.0.0.1:23790"), files=files) == 2
    err = capfd.readouterr().err
    assert err.count("\n") == 1
    assert "--endpoints 127.0.0.1:23790 is the gateway's own listen address" in err


def test_a_missing_ca_file_is_wrong_usage(files: Files, capfd: Capture) -> None:
    """A CA file that cannot be read is wrong usage, and named."""
    config = Config(discovery_srv="test", trusted_ca_file="/nonexistent/ca.pem")
    assert check_command.run(config, files=files) == 2
    assert "/nonexistent/ca.pem" in capfd.readouterr().err


def test_a_dial_times_out(files: Files, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dial takes no longer than --dial-timeout."""
    config = replace(static("127.0.0.1:1"), dial_timeout_s=0.0)
    assert check_command.run(config, files=files) == 69
    assert "refused" in (out := capsys.readouterr().out) or "timeout" in out


def on(port: int, *endpoints: str, admin: tuple[str, ...] = ()) -> Config:
    """A configuration that listens on a port of 127.0.0.1."""
    listen = (HostPort("127.0.0.1", port),)
    return replace(static(*endpoints), listen_addr=listen, admin_addr=admin)


def test_own_addresses_that_are_free(files: Files, capsys: Capture, tmp_path: Path) -> None:
    """Addresses that can be bound are free, a socket that a dead process left behind included."""
    left = tmp_path / "left.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(left))
    admin = (f"unix:{tmp_path}/new.sock", f"unix:{left}", f"127.0.0.1:{free_port()}")
    with Server(plaintext) as backend:
        config = on(free_port(), f"127.0.0.1:{backend.port}", admin=admin)
        assert check_command.run(config, as_json=True, files=files) == 0
    document = json.loads(capsys.readouterr().out)
    assert [each["state"] for each in document["own_addresses"]] == ["free"] * 4
    assert document["workers"] >= 1
    assert document["obstacles"] == []
    assert left.exists()


def test_own_addresses_that_cannot_be_had(files: Files, capfd: Capture, tmp_path: Path) -> None:
    """What start would exit 1 for is named, a line each, and check exits 1 too."""
    (tmp_path / "file").touch()
    with Server(plaintext) as backend, socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        admin = (
            f"127.0.0.1:{taken}",
            f"unix:{tmp_path}/file",
            f"unix:{tmp_path}/none/g.sock",
            f"unix:{tmp_path}/file/g.sock",
        )
        config = on(taken, f"127.0.0.1:{backend.port}", admin=admin)
        config = replace(config, listen_addr=(*config.listen_addr, HostPort("192.0.2.1", 1)))
        assert check_command.run(config, files=files) == 1
    out, err = capfd.readouterr()
    assert "1 of 1 endpoints can be used" in out
    where = "cannot listen there"
    assert [line.removeprefix("etcd-gateway: ") for line in err.splitlines()] == [
        f"--listen-addr 127.0.0.1:{taken}: {where}: Address already in use",
        f"--listen-addr 192.0.2.1:1: {where}: Cannot assign requested address",
        f"--admin-addr 127.0.0.1:{taken}: {where}: Address already in use",
        f"--admin-addr unix:{tmp_path}/file: {where}: the file exists and is not a socket",
        f"--admin-addr unix:{tmp_path}/none/g.sock: {where}: there is no directory {tmp_path}/none",
        f"--admin-addr unix:{tmp_path}/file/g.sock: {where}: Not a directory",
    ]


def test_another_programs_socket_file(files: Files, capfd: Capture, tmp_path: Path) -> None:
    """A unix socket on which something else answers is in use."""
    path = tmp_path / "other.sock"
    with socket.socket(socket.AF_UNIX) as other, Server(plaintext) as backend:
        other.bind(str(path))
        other.listen()

        def hang_up() -> None:
            other.accept()[0].close()

        threading.Thread(target=hang_up, daemon=True).start()
        config = on(free_port(), f"127.0.0.1:{backend.port}", admin=(f"unix:{path}",))
        assert check_command.run(config, files=files) == 1
    assert "other.sock: cannot listen there: Address already in use" in capfd.readouterr().err


@pytest.mark.slow
def test_addresses_of_a_running_gateway(files: Files, capfd: Capture, tmp_path: Path) -> None:
    """A running gateway is named and not disturbed: clients are accepted all the while."""
    with (
        Server(plaintext) as backend,
        running(
            f"--admin-addr=unix:{tmp_path}/g.sock", endpoints=[f"127.0.0.1:{backend.port}"]
        ) as gateway,
    ):
        admin = (f"unix:{tmp_path}/g.sock",)
        config = on(gateway.port, f"127.0.0.1:{backend.port}", admin=admin)
        for _ in range(5):
            assert check_command.run(config, files=files) == 0
            for _ in range(10):
                socket.create_connection(gateway.address).close()
        assert check_command.run(config, as_json=True, files=files) == 0
    text = capfd.readouterr().out
    assert f"in use by the running gateway, pid {gateway.pid}" in text
    document = json.loads(text[text.index("{") :])
    assert [each["pid"] for each in document["own_addresses"]] == [gateway.pid, gateway.pid]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts, which needs root")
def test_a_host_without_proc(tmp_path: Path) -> None:
    """Where /proc is not mounted that is the obstacle; UNIX sockets are looked at all the same."""
    taken = f"@{tmp_path}/taken"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(f"\0{taken[1:]}")
        listen = f"unix:{tmp_path}/g.sock,unix:@{tmp_path}/free,unix:{taken}"
        hidden = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh"]
        check = ["check", "--json", "--endpoints=127.0.0.1:1", f"--listen-addr={listen}"]
        shown = subprocess.run(
            [*hidden, *COMMAND, *check],
            capture_output=True,
            text=True,
            env=environment(),
        )
    assert shown.returncode == 1
    assert shown.stderr.splitlines() == [
        f"etcd-gateway: --listen-addr unix:{taken}: cannot listen there: Address already in use",
        "etcd-gateway: /proc is not there, expected it to be mounted",
    ]
    document = json.loads(shown.stdout)
    assert [each["state"] for each in document["own_addresses"]] == ["free", "free", "unusable"]


def test_a_listen_name_that_does_not_resolve(files: Files, ns: NameServer, capfd: Capture) -> None:
    """A listen name that does not exist is wrong usage."""
    listen = (HostPort("listen.test", 1),)
    config = replace(static("127.0.0.1:1"), listen_addr=listen, nameserver=(ns.address,))
    assert check_command.run(config, files=files) == 2
    assert "--listen-addr listen.test:1: cannot resolve the host" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ("-n 60", "the limit of open files is 60, expected at least"),
        ("-f 0", "the limit of the size of files is 0 bytes, expected at least"),
    ],
)
def test_a_limit_that_is_too_low(limit: str, said: str) -> None:
    """One of open files that is too low for the workers is an obstacle; so is one of their size."""
    with Server(plaintext) as backend:
        flags = ["--workers=16", f"--endpoints=127.0.0.1:{backend.port}"]
        flags.append(f"--listen-addr=127.0.0.1:{free_port()}")
        shown = subprocess.run(
            ["sh", "-c", f'ulimit {limit}; exec "$@"', "sh", *COMMAND, "check", *flags],
            capture_output=True,
            text=True,
            env=environment(),
        )
    assert shown.returncode == 1
    assert said in shown.stderr


def test_the_configuration_is_shown_with_its_sources(
    capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not the default is in the table, everything is in the document."""
    monkeypatch.setenv("GATEWAY_DIAL_TIMEOUT", "1s")
    monkeypatch.setenv("GATEWAY_ENDPIONTS", "a:1")
    arguments = ["check", "--endpoints=127.0.0.1:1", f"--listen-addr=127.0.0.1:{free_port()}"]
    assert main(arguments) == 69
    out, err = capfd.readouterr()
    rows = [line.split() for line in out.splitlines()]
    assert ["dial-timeout", "1s", "variable"] in rows
    assert ["endpoints", "127.0.0.1:1", "flag"] in rows
    assert not any(row[:1] == ["balance"] for row in rows)
    assert "GATEWAY_ENDPIONTS is not a variable of the gateway" in err
    assert main([*arguments, "--json"]) == 69
    configuration = json.loads(capfd.readouterr().out)["configuration"]
    assert configuration["balance"] == {"value": "round-robin", "source": "default"}


def test_long_values_are_shown_whole(capfd: Capture) -> None:
    """A list in lines that end behind its commas; of thousands, the document has the rest."""
    names = [f"gateway{number}.a-domain-with-a-long-name.example.com" for number in range(3)]
    networks = ",".join(f"10.0.{number}.0/24" for number in range(200))
    flags = [f"--admin-host={','.join(names)}", f"--allow={networks}", f"--host-seed={'x' * 99}"]
    main(["check", "--endpoints=127.0.0.1:1", f"--listen-addr=127.0.0.1:{free_port()}", *flags])
    out = capfd.readouterr().out
    rows = [line.split() for line in out.splitlines()]
    assert ["host-seed", "x" * 99, "flag"] in rows
    assert (first := rows.index(["admin-host", f"{names[0]},", "flag"]))
    assert rows[first + 1 : first + 3] == [[f"{names[1]},"], [names[2]]]
    assert f"... {200 - out.count('10.0.')} more, see --json" in out
    assert out.count("10.0.") > 50


@pytest.mark.parametrize(
    ("drained", "problems"),
    [
        ("127.0.0.1:1", []),
        ("127.0.0.1:1,infra9:2379", ["no such endpoint in --drain-endpoints: infra9:2379"]),
        (
            "127.0.0.1:1,127.0.0.2:1",
            ["every endpoint is in --drain-endpoints, so no client will be served"],
        ),
    ],
)
def test_endpoints_under_maintenance(drained: str, problems: list[str], capfd: Capture) -> None:
    """A name that no endpoint has, as the log says it, and that nobody is left for clients."""
    flags = [f"--drain-endpoints={drained}", f"--listen-addr=127.0.0.1:{free_port()}"]
    assert main(["check", "--json", "--endpoints=127.0.0.1:1,127.0.0.2:1", *flags]) == 69
    assert json.loads(capfd.readouterr().out)["problems"] == problems


def test_explain_shows_the_chain_from_name_to_address(
    ns: NameServer, files: Files, capsys: Capture
) -> None:
    """Which names were asked of which server, what it said, what was left out, and the dials."""
    with Server(plaintext) as backend:
        ns.set(
            "_etcd-client._tcp.test",
            "SRV",
            f"0 0 {backend.port} n1.test.",
            "0 0 0 n2.test.",
            "0 0 9 gone.test.",
        )
        config = Config(discovery_srv="test", insecure_discovery=True, nameserver=(ns.address,))
        assert check_command.run(config, explain=True, files=files) == 0
        text = capsys.readouterr().out
        assert f"SRV _etcd-client-ssl._tcp.test from {ns.address} over UDP: NXDOMAIN" in text
        assert f"\n  record 0 0 {backend.port} n1.test\n    host n1.test\n" in text
        assert "      A n1.test from" in text
        assert f"\n    endpoint n1.test:{backend.port}\n      127.0.0.1: connected in" in text
        assert "left out: port 0" in text
        assert "a definite no: NXDOMAIN" in text
        check_command.run(config, as_json=True, explain=True, files=files)
        ssl, plain = json.loads(capsys.readouterr().out)["explanation"]
        assert ssl["children"][-1]["no_answer"] == "a definite no: NXDOMAIN"
        step = plain["children"][0]
        assert (step["type"], step["server"], step["transport"]) == ("SRV", str(ns.address), "udp")
        assert step["flags"] == ["aa"]
        assert step["ttl_s"] == 5


def test_explain_of_static_endpoints(ns: NameServer, files: Files, capsys: Capture) -> None:
    """Literals need no lookup; a name of the hosts file is said to be from there."""
    Path(files.hosts).write_text("127.0.0.1 pinned\n")
    dead = free_port()
    config = replace(static(f"pinned:{dead}", f"127.0.0.1:{dead}"), nameserver=(ns.address,))
    check_command.run(config, explain=True, files=files)
    text = capsys.readouterr().out
    assert f"pinned in {files.hosts}: 127.0.0.1" in text
    assert f"\n--endpoints 127.0.0.1:{dead}\n  endpoint 127.0.0.1:{dead}\n" in text
    assert "    127.0.0.1: connection refused" in text


def test_an_address_to_dial_from_that_is_not_ours(files: Files, capfd: Capture) -> None:
    """It is named as what a start would fail with, and every dial says it too."""
    with Server(plaintext) as backend:
        config = replace(static(f"127.0.0.1:{backend.port}"), source_addr=("192.0.2.99",))
        try:
            assert check_command.run(config, files=files) == 1
        finally:
            dial_as(Config())
    out, err = capfd.readouterr()
    assert "--source-addr 192.0.2.99: no address of this host" in err
    assert "cannot assign requested address" in out
