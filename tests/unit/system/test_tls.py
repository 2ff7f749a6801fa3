"""TLS contexts and connections as the gate, the probe and ``check`` share them."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import resource
import select
import socket
import ssl
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from supervisor.core.discovery.admission import Candidate, Passed, Unreachable
from supervisor.core.health.probing import Plan, ProbeKind, Verdict
from supervisor.discovery.tls_gate import Gate
from supervisor.health.probe import Probe
from supervisor.system.connections import connect, open_socket
from supervisor.system.tls import CLIENT_CERTIFICATE_ALERTS, TlsClient
from supervisor.system.tls_contexts import TlsContexts, TlsFiles
from tests.logbook import Logbook
from tests.tls import Authority, Server, Talk

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


def plain_chain(directory: Path) -> ssl.SSLContext:
    """A server whose chain is as plain as many private ones: no key usage, no key identifiers."""
    now = datetime.datetime.now(datetime.UTC)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, cn)]) for cn in ("ca", "leaf")]
    certificates = []
    for number, extension in enumerate(
        [
            (x509.BasicConstraints(ca=True, path_length=None), False),
            (x509.SubjectAlternativeName([x509.DNSName("example.test")]), False),
        ]
    ):
        builder = x509.CertificateBuilder(names[0], names[number], keys[number].public_key())
        builder = builder.serial_number(number + 1).add_extension(*extension)
        builder = builder.not_valid_before(now - datetime.timedelta(days=1))
        builder = builder.not_valid_after(now + datetime.timedelta(days=1))
        certificates.append(builder.sign(keys[0], hashes.SHA256()))
    pems = [each.public_bytes(serialization.Encoding.PEM) for each in certificates]
    (directory / "ca.pem").write_bytes(pems[0])
    private = keys[1].private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (directory / "server.pem").write_bytes(private + pems[1])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "server.pem")
    return context


@BOTH
def test_a_plain_chain_is_good_enough(make: Callable[[], Judge], tmp_path: Path) -> None:
    """Go accepts it, and so does every Python here; the strict rules of 3.13 would not."""
    with Server(plain_chain(tmp_path)) as server:
        assert make()(str(tmp_path / "ca.pem"), server.port)


@BOTH
def test_a_replaced_ca_file_counts_at_once(make: Callable[[], Judge], tmp_path: Path) -> None:
    """The CA file is read again when it changed, without a reload."""
    ours, other = Authority(tmp_path, "ours"), Authority(tmp_path, "other")
    judge = make()
    with Server(other.context("example.test")) as server:
        assert not judge(ours.file, server.port)
        Path(other.file).replace(ours.file)
        assert judge(ours.file, server.port)


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Watched:
    """Contexts of a CA file with a clock of their own, and what the log says of them."""

    def __init__(self, tmp_path: Path) -> None:
        self.ours, self.other = Authority(tmp_path, "ours"), Authority(tmp_path, "other")
        self.file = Path(self.ours.file)
        self.files = TlsFiles(ca_file=self.ours.file)
        self.clock, self.log = Clock(), Logbook()
        self.contexts = TlsContexts(self.log, clock=self.clock)
        self.first = self.contexts.get(self.files)

    @property
    def changed(self) -> bool:
        return self.contexts.get(self.files) is not self.first

    def at(self, now: float) -> Watched:
        self.clock.now = now
        return self


@pytest.mark.parametrize("damage", ["junk", "half", "empty", "absent"])
def test_a_ca_file_that_broke_is_nobodys_guilt(tmp_path: Path, damage: str) -> None:
    """What was loaded before is used on, and the log says so once, when it lasts."""
    watched = Watched(tmp_path)
    good = watched.file.read_bytes()
    if damage == "absent":
        watched.file.unlink()
    else:
        texts = {"junk": b"junk", "half": good + good[:300], "empty": b""}
        (tmp_path / "new").write_bytes(texts[damage])
        (tmp_path / "new").replace(watched.file)
    assert not watched.at(1.0).changed
    assert (
        watched.log.messages.count("changed TLS files cannot be used, those before are kept") == 0
    )
    for now in (2.0, 3.0, 4.0):
        assert not watched.at(now).changed
    assert (
        watched.log.messages.count("changed TLS files cannot be used, those before are kept") == 1
    )
    Path(watched.other.file).replace(watched.file)
    assert watched.at(4.1).changed
    assert watched.log.messages.count("TLS files changed") == 1


def test_a_ca_file_that_broke_passes_whoever_passed(tmp_path: Path) -> None:
    """Neither gate nor probe refuses an endpoint because our own CA file is half written."""
    authority = Authority(tmp_path)
    gate = Gate("example.test", ca_file=authority.file)
    Path(authority.file).write_text("junk")

    async def verify() -> object:
        return await gate.verify(Candidate("a:1", "127.0.0.1", server.port))

    with Server(authority.context("example.test")) as server:
        assert asyncio.run(verify()) == Passed()


def test_a_file_that_is_written_in_place_has_to_settle(tmp_path: Path) -> None:
    """The beginning of a bundle is a bundle, too: it is used when it has stayed the same."""
    watched = Watched(tmp_path)
    whole = watched.file.read_bytes() + Path(watched.other.file).read_bytes()
    with watched.file.open("r+b") as file:
        file.write(whole[:-10])
        file.flush()
        assert not watched.at(1.0).changed
        assert not watched.at(1.9).changed
        file.write(whole[-10:])
    assert not watched.at(2.5).changed
    assert not watched.at(3.4).changed
    assert watched.at(3.5).changed
    assert watched.contexts.get(watched.files).cert_store_stats()["x509_ca"] == 2
    assert (
        watched.log.messages.count("changed TLS files cannot be used, those before are kept") == 0
    )


def test_links_that_are_swapped_count_at_once(tmp_path: Path) -> None:
    """As Kubernetes does it: the file is a link into a directory that is a link."""
    ours, other = tmp_path / "..1", tmp_path / "..2"
    for directory in (ours, other):
        directory.mkdir()
        (directory / "ca.pem").write_bytes(Path(Authority(directory).file).read_bytes())
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "ca.pem").symlink_to("..data/ca.pem")
    files, contexts = TlsFiles(ca_file=str(tmp_path / "ca.pem")), TlsContexts()
    first = contexts.get(files)
    assert not contexts.look()
    (tmp_path / "..new").symlink_to("..2")
    (tmp_path / "..new").replace(tmp_path / "..data")
    assert contexts.look()
    assert contexts.get(files) is not first


def test_a_change_that_a_handshake_finds_first_is_told(tmp_path: Path) -> None:
    """Whoever looks for changed files hears of each, though a probe was quicker."""
    watched = Watched(tmp_path)
    Path(watched.other.file).replace(watched.file)
    watched.contexts.get(watched.files)
    assert watched.contexts.look()
    assert not watched.contexts.look()


def test_a_certificate_waits_for_its_key(tmp_path: Path) -> None:
    """While only one of both was replaced, the pair before is shown."""
    authority = Authority(tmp_path)
    cert, key = map(Path, authority.client_files("one"))
    new_cert, new_key = map(Path, authority.client_files("two"))
    files = TlsFiles(ca_file=authority.file, cert_file=str(cert), key_file=str(key))
    contexts = TlsContexts()
    first = contexts.get(files)
    new_cert.replace(cert)
    assert contexts.get(files) is first
    new_key.replace(key)
    assert contexts.get(files) is not first


def test_a_key_that_is_encrypted_is_an_error(tmp_path: Path) -> None:
    """Nobody is asked for a password, least of all a terminal."""
    authority = Authority(tmp_path)
    cert, key = authority.client_files()
    parsed = serialization.load_pem_private_key(Path(key).read_bytes(), None)
    Path(key).write_bytes(
        parsed.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(OSError, match=r"cannot load .*: the key is encrypted"):
        TlsContexts().get(TlsFiles(ca_file=authority.file, cert_file=cert, key_file=key))


def test_contexts_of_other_files_are_forgotten(tmp_path: Path) -> None:
    """A reload may name other files; what becomes of those before is of no interest."""
    watched = Watched(tmp_path)
    watched.contexts.retain([watched.other.file])
    watched.file.unlink()
    assert not watched.at(9.0).contexts.look()
    assert watched.log.lines == []


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


def refuse_and_reset(context: ssl.SSLContext) -> Talk:
    """Refuses the client in a handshake, with an alert, and then resets the connection."""

    def talk(sock: socket.socket) -> None:
        with context.wrap_socket(
            sock.dup(), server_side=True, do_handshake_on_connect=False
        ) as tls:
            with contextlib.suppress(ssl.SSLError):
                tls.do_handshake()
            tls.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()

    return talk


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_an_alert_says_more_than_the_reset_that_follows(
    version: ssl.TLSVersion, tmp_path: Path
) -> None:
    """A client whose certificate is refused may learn of the reset first, when it sends."""
    ours = Authority(tmp_path, "ours")
    cert_file, key_file = Authority(tmp_path, "others").client_files()
    files = TlsFiles(ca_file=ours.file, cert_file=cert_file, key_file=key_file)
    context = ours.context("example.test", want_client_certificate=True, version=version)

    async def ask(port: int) -> None:
        with open_socket("127.0.0.1") as sock:
            await connect(sock, "127.0.0.1", port)
            client = TlsClient(sock, TlsContexts().get(files), "example.test")
            await client.shake_hands()
            poller = select.poll()
            poller.register(sock, 0)
            assert poller.poll(60_000)  # the reset is there
            await client.send(b"question")

    with Server(refuse_and_reset(context)) as server, pytest.raises(ssl.SSLError) as raised:
        asyncio.run(ask(server.port))
    assert raised.value.reason in CLIENT_CERTIFICATE_ALERTS


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
