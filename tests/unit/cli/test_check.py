"""The check command: what it prints, and its exit code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.core.address import HostPort
from supervisor.cli import check as check_command
from supervisor.core.config import Config, StaticTarget
from supervisor.core.discovery.system_names import Files
from tests.dns import NameServer
from tests.support import free_port
from tests.tls import Authority, Server, plaintext, silent

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
    with Server(silent) as backend:
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
    with Server(silent) as backend:
        config = replace(static(f"n1.test:{backend.port}"), nameserver=(ns.address,))
        assert check_command.run(config, as_json=True, files=files) == 0
    (endpoint,) = json.loads(capsys.readouterr().out)["endpoints"]
    assert [dial["error"] for dial in endpoint["dials"]] == [None, "connection refused"]


def test_a_loop_is_wrong_usage(files: Files, capsys: Capture) -> None:
    """An endpoint that is our own listen address is wrong usage: exit code 2, one line."""
    assert check_command.run(static("127.0.0.1:23790"), files=files) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "--endpoints 127.0.0.1:23790 is the gateway's own listen address" in err


def test_a_missing_ca_file_is_wrong_usage(files: Files, capsys: Capture) -> None:
    """A CA file that cannot be read is wrong usage, and named."""
    config = Config(discovery_srv="test", trusted_ca_file="/nonexistent/ca.pem")
    assert check_command.run(config, files=files) == 2
    assert "/nonexistent/ca.pem" in capsys.readouterr().err


def test_a_dial_times_out(files: Files, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dial takes no longer than --dial-timeout."""
    config = replace(static("127.0.0.1:1"), dial_timeout_s=0.0)
    assert check_command.run(config, files=files) == 69
    assert "refused" in (out := capsys.readouterr().out) or "timeout" in out
