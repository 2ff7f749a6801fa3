"""The TLS gate against servers that deserve to pass, and servers that do not."""

from __future__ import annotations

import asyncio
import datetime
import errno
import os
import ssl
import threading
from pathlib import Path

import pytest

from supervisor.core.discovery.admission import Candidate, Passed, Refused, Unreachable, Verdict
from supervisor.discovery import tls_gate
from supervisor.discovery.tls_gate import Gate
from supervisor.system.tls import TlsClient
from tests.support import eventually, free_port, watch_nothing
from tests.tls import Authority, LateHandshake, Server, Talk, hang_up, plaintext, reset, silent

BOTH = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def verify(
    server: Server | int,
    authority: Authority,
    files: tuple[str, str] = ("", ""),
    address: str = "127.0.0.1",
    timeout_s: float = 5.0,
) -> Verdict:
    async def one() -> Verdict:
        gate = Gate(
            "example.test",
            ca_file=authority.file,
            cert_file=files[0],
            key_file=files[1],
            timeout_s=timeout_s,
        )
        threads = threading.active_count()
        port = server if isinstance(server, int) else server.port
        verdict = await gate.verify(Candidate("a:1", address, port))
        assert threading.active_count() == threads
        return verdict

    return asyncio.run(one())


@BOTH
def test_a_certificate_for_the_domain_passes(authority: Authority, version: ssl.TLSVersion) -> None:
    """A certificate of the trusted CA for the discovery domain passes, and nobody complains."""
    with Server(authority.context("example.test", version=version)) as server:
        assert verify(server, authority) == Passed()
        server.stop()
        assert server.complaints == []


@BOTH
def test_a_certificate_for_another_name_is_refused(
    authority: Authority, version: ssl.TLSVersion
) -> None:
    """The name of the SRV target does not count, only the domain."""
    with Server(authority.context("infra0.example.test", version=version)) as server:
        verdict = verify(server, authority)
    assert isinstance(verdict, Refused)
    assert "Hostname mismatch" in verdict.reason
    assert not verdict.hung_up


def test_a_common_name_alone_is_no_name(authority: Authority) -> None:
    """Clients of etcd refuse such a certificate, and so would every session with the endpoint."""
    leaf = authority.ca.issue_cert(common_name="example.test")
    with Server(authority.context(certificate=leaf)) as server:
        verdict = verify(server, authority)
    assert isinstance(verdict, Refused)
    assert "Hostname mismatch" in verdict.reason


def test_another_authority_is_refused(authority: Authority, tmp_path: Path) -> None:
    """A certificate of a CA that is not in --trusted-ca-file is refused."""
    other = Authority(tmp_path, "other")
    with Server(other.context("example.test")) as server:
        verdict = verify(server, authority)
    assert isinstance(verdict, Refused)
    assert "unable to get local issuer certificate" in verdict.reason


def test_an_expired_certificate_is_refused(authority: Authority) -> None:
    """An expired certificate is refused, and the reason says so."""
    past = datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC)
    leaf = authority.ca.issue_cert("example.test", not_after=past)
    with Server(authority.context(certificate=leaf)) as server:
        verdict = verify(server, authority)
    assert isinstance(verdict, Refused)
    assert "expired" in verdict.reason


@BOTH
@pytest.mark.parametrize("own", [True, False])
def test_a_server_that_demands_a_client_certificate_passes(
    authority: Authority, version: ssl.TLSVersion, own: bool
) -> None:
    """With a client certificate of ours or without: it passes if its own certificate verifies."""
    context = authority.context("example.test", want_client_certificate=True, version=version)
    files = authority.client_files() if own else ("", "")
    with Server(context) as server:
        assert verify(server, authority, files) == Passed()


@BOTH
def test_demanding_a_client_certificate_is_no_way_round_the_check(
    authority: Authority, version: ssl.TLSVersion
) -> None:
    """A server with the wrong name is refused even if it demands a client certificate."""
    context = authority.context("wrong.test", want_client_certificate=True, version=version)
    with Server(context) as server:
        assert isinstance(verify(server, authority), Refused)


def test_no_common_cipher_is_refused(authority: Authority) -> None:
    """An alert before the certificate was seen is a refusal."""
    context = authority.context("example.test", version=ssl.TLSVersion.TLSv1_2)
    context.set_ciphers("AES128-SHA")
    with Server(context) as server:
        verdict = verify(server, authority)
    assert isinstance(verdict, Refused)
    assert "alert" in verdict.reason


@pytest.mark.parametrize(("talk", "hung_up"), [(plaintext, False), (hang_up, True), (reset, True)])
def test_plaintext_is_refused(authority: Authority, talk: Talk, hung_up: bool) -> None:
    """A server that does not speak TLS is refused, whatever it does instead."""
    with Server(talk) as server:
        verdict = verify(server, authority)
    assert isinstance(verdict, Refused)
    assert "does not speak TLS" in verdict.reason
    assert verdict.hung_up == hung_up


def test_a_silent_server_is_unreachable(authority: Authority) -> None:
    """No answer within the timeout says nothing about the certificate."""
    with Server(silent) as server:
        verdict = verify(server, authority, timeout_s=0.1)
    assert verdict == Unreachable("timeout after 0.1 s")


def test_an_answer_that_cannot_be_waited_for_says_nothing_either(authority: Authority) -> None:
    """The kernel's limit of watches is reached after the connect: not the server's fault."""

    async def check(port: int) -> Verdict:
        gate = Gate("example.test", ca_file=authority.file)
        with pytest.MonkeyPatch.context() as full:
            full.setattr(asyncio.get_running_loop(), "_add_reader", watch_nothing)
            return await gate.verify(Candidate("a:1", "127.0.0.1", port))

    with Server(silent) as server:
        verdict = asyncio.run(check(server.port))
    assert isinstance(verdict, Unreachable)
    assert "no space left on device" in verdict.error


class Verified(TlsClient):
    """A client whose server has shown its certificate when our host has no room to go on."""

    def __init__(self) -> None:
        self.verified = True

    async def shake_hands(self) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_certificate_that_verified_passes_though_no_more_can_be_waited_for() -> None:
    """It is proof enough, whatever our host lacks behind it."""
    assert asyncio.run(tls_gate._shake_hands(Verified())) == Passed()


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_nobody_there_is_unreachable(authority: Authority, address: str) -> None:
    """A refused connection says nothing about the certificate."""
    verdict = verify(free_port(), authority, address=address)
    assert verdict == Unreachable("connection refused")


@pytest.mark.parametrize("what", ["ca_file", "cert_file"])
def test_a_missing_file_is_told(what: str, tmp_path: Path) -> None:
    """A CA bundle or certificate that cannot be read is an error that names the file."""
    missing = str(tmp_path / "missing.pem")
    with pytest.raises(ValueError, match=r"missing\.pem"):
        Gate("example.test", **{what: missing})  # type: ignore[arg-type]


def test_an_address_that_this_host_has_no_way_to_is_told_apart(authority: Authority) -> None:
    """Our own kernel refuses to dial it."""
    verdict = verify(9, authority, address="255.255.255.255")
    assert verdict == Unreachable("network is unreachable", cut_off=True)


def test_a_handshake_under_way_ends_when_the_gate_closes(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop in the middle of a check lets it end, and begins no further one."""
    monkeypatch.setattr("supervisor.discovery.tls_gate.CLOSE_S", 60.0)
    late = LateHandshake(authority.context("example.test"))

    async def scene(server: Server) -> None:
        gate = Gate("example.test", ca_file=authority.file)
        check = asyncio.create_task(gate.verify(Candidate("a:1", "127.0.0.1", server.port)))
        await eventually(lambda: server.connections)
        asyncio.get_running_loop().call_soon(late.go_on.set)
        await gate.close()
        check.cancel()
        (verdict,) = await asyncio.gather(check, return_exceptions=True)
        assert verdict == Passed()
        refused = await gate.verify(Candidate("a:1", "127.0.0.1", server.port))
        assert refused == Unreachable("the gateway stops")

    with Server(late) as server:
        asyncio.run(scene(server))
    assert late.heard == [b""]


@pytest.mark.parametrize("how", ["too long", "cancelled"])
def test_a_handshake_that_nobody_awaits_any_more_ends_in_order(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """After the timeout, or a cancellation, it goes on to its end: etcd logs what breaks off."""
    monkeypatch.setattr("supervisor.system.connections.LINGER_S", 60.0)
    late = LateHandshake(authority.context("example.test"))

    async def scene(server: Server) -> None:
        timeout_s = 0.5 if how == "too long" else 60.0  # time enough to connect
        gate = Gate("example.test", ca_file=authority.file, timeout_s=timeout_s)
        check = asyncio.create_task(gate.verify(Candidate("a:1", "127.0.0.1", server.port)))
        await eventually(lambda: server.connections)
        loop = asyncio.get_running_loop()
        if how == "cancelled":
            loop.call_soon(check.cancel)
        loop.call_later(0.6, late.go_on.set)
        (verdict,) = await asyncio.gather(check, return_exceptions=True)
        if how == "cancelled":
            assert isinstance(verdict, asyncio.CancelledError)
        else:
            assert verdict == Unreachable("timeout after 0.5 s")

    with Server(late) as server:
        asyncio.run(scene(server))
    assert late.heard == [b""]


def test_a_gate_that_is_paused_ends_what_it_began_and_begins_nothing(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upgrade that fails after all lets the checks that waited go on."""
    monkeypatch.setattr("supervisor.discovery.tls_gate.CLOSE_S", 60.0)
    late = LateHandshake(authority.context("example.test"))

    async def scene(server: Server) -> None:
        gate = Gate("example.test", ca_file=authority.file, max_concurrent=1)
        candidate = Candidate("a:1", "127.0.0.1", server.port)
        checks = [asyncio.create_task(gate.verify(candidate)) for _ in range(2)]
        await eventually(lambda: server.connections)
        asyncio.get_running_loop().call_soon(late.go_on.set)
        await gate.pause()
        assert await checks[0] == Passed()
        for _ in range(20):
            await asyncio.sleep(0)
        assert (server.connections, checks[1].done()) == (1, False)
        gate.resume()
        assert await checks[1] == Passed()

    with Server(late) as server:
        asyncio.run(scene(server))
    assert late.heard == [b"", b""]
