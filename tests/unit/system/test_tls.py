"""TLS contexts and connections as the gate, the probe and ``check`` share them."""

from __future__ import annotations

import asyncio
import resource
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from supervisor.core.discovery.admission import Candidate, Passed, Unreachable
from supervisor.core.health.probing import Plan, ProbeKind, Verdict
from supervisor.discovery.tls_gate import Gate
from supervisor.health.probe import Probe
from supervisor.system.connections import connect, open_socket
from supervisor.system.tls import TlsContexts, TlsFiles
from tests.tls import Authority, Server

Judge = Callable[[str, int], bool]
"""Whether a server on this port passes with this CA file."""


def by_gate() -> Judge:
    gates: dict[str, Gate] = {}

    def judge(ca_file: str, port: int) -> bool:
        async def verify() -> bool:
            gate = gates.setdefault(ca_file, Gate("example.test", ca_file=ca_file))
            return await gate.verify(Candidate("a:1", "127.0.0.1", port)) == Passed()

        return asyncio.run(verify())

    return judge


def by_probe() -> Judge:
    contexts = TlsContexts()

    def judge(ca_file: str, port: int) -> bool:
        async def probe() -> bool:
            plan = Plan(kind=ProbeKind.TLS, server_name="example.test", ca_file=ca_file)
            one = Probe("127.0.0.1", port, plan, contexts)
            try:
                return (await one.run(5)).verdict is Verdict.PASSED
            finally:
                await one.leave()
                one.close()

        return asyncio.run(probe())

    return judge


BOTH = pytest.mark.parametrize("make", [by_gate, by_probe])


@BOTH
def test_an_intermediate_is_enough_to_trust(make: Callable[[], Judge], tmp_path: Path) -> None:
    """A CA file that has only the intermediate which signed the certificate will do, as in Go."""
    root = trustme.CA()
    intermediate = root.create_child_ca()
    intermediate.cert_pem.write_to_path(tmp_path / "intermediate.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    intermediate.issue_cert("example.test").configure_cert(context)
    with Server(context) as server:
        assert make()(str(tmp_path / "intermediate.pem"), server.port)


@BOTH
def test_a_replaced_ca_file_counts_at_once(make: Callable[[], Judge], tmp_path: Path) -> None:
    """The CA file is read again when it changed, without a reload."""
    ours, other = Authority(tmp_path, "ours"), Authority(tmp_path, "other")
    judge = make()
    with Server(other.context("example.test")) as server:
        assert not judge(ours.file, server.port)
        Path(other.file).replace(ours.file)
        assert judge(ours.file, server.port)


def test_a_ca_file_that_broke_is_nobodys_guilt(tmp_path: Path) -> None:
    """An endpoint is not refused because our own CA file cannot be read any more."""
    authority = Authority(tmp_path)
    gate = Gate("example.test", ca_file=authority.file)
    Path(authority.file).write_text("junk")

    async def verify() -> object:
        return await gate.verify(Candidate("a:1", "127.0.0.1", server.port))

    with Server(authority.context("example.test")) as server:
        verdict = asyncio.run(verify())
    assert isinstance(verdict, Unreachable)
    assert authority.file in verdict.error


def test_strict_rules_are_off(tmp_path: Path) -> None:
    """Python 3.13 refuses CAs that Go accepts; no context of ours does, with a file or without."""
    contexts = TlsContexts()
    for files in (TlsFiles(), TlsFiles(ca_file=Authority(tmp_path).file)):
        flags = contexts.get(files).verify_flags
        assert not flags & ssl.VerifyFlags.VERIFY_X509_STRICT
        assert flags & ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN


def test_an_unverified_context_stays_apart(tmp_path: Path) -> None:
    """Whether a certificate is verified is a part of what a context is made of."""
    authority, contexts = Authority(tmp_path), TlsContexts()
    assert contexts.get(TlsFiles(ca_file=authority.file)).verify_mode is ssl.CERT_REQUIRED
    lax = contexts.get(TlsFiles(ca_file=authority.file, verify=False))
    assert lax.verify_mode is ssl.CERT_NONE


def test_a_connection_to_itself_is_a_refusal() -> None:
    """TCP lets a socket connect to itself; nobody listens there."""

    async def meet_itself() -> None:
        with open_socket("127.0.0.1") as sock:
            sock.bind(("127.0.0.1", 0))
            with pytest.raises(ConnectionRefusedError, match="connected to itself"):
                await connect(sock, "127.0.0.1", sock.getsockname()[1])

    asyncio.run(meet_itself())


def test_no_descriptor_is_no_verdict(tmp_path: Path) -> None:
    """A gate that gets no socket does not know, and does not fail the round."""
    authority = Authority(tmp_path)

    async def verify() -> object:
        gate = Gate("example.test", ca_file=authority.file)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            return await gate.verify(Candidate("a:1", "127.0.0.1", 1))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert isinstance(asyncio.run(verify()), Unreachable)
