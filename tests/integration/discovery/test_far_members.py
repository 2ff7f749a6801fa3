"""Members at the other end of the world: what is asked of them takes its time."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import pytest

from supervisor.system.etcd_client import EtcdConnection, Peer
from supervisor.system.tls_contexts import TlsContexts, TlsFiles
from tests.servers import serving, silent
from tests.stress.field import HOST, prepared, why_no_field
from tests.tls import Authority
from tests.wires import inside

pytestmark = pytest.mark.skipif(bool(why_no_field()), reason=why_no_field())

ONE_WAY_S = 0.2


def test_a_far_member_is_not_taken_for_one_without_tls(tmp_path: Path) -> None:
    """A handshake of TLS 1.2 takes two round trips, here longer than a near server may think."""
    authority = Authority(tmp_path)
    context = authority.context(HOST, version=ssl.TLSVersion.TLSv1_2)

    async def ask(port: int) -> bool:
        files = TlsFiles(ca_file=authority.file)
        peer = Peer(address=HOST, port=port, server_name=HOST, files=files, guess=True)
        async with EtcdConnection(peer, TlsContexts()) as member:
            return member.tls is not None

    with prepared(tmp_path, ONE_WAY_S) as field:
        listener = inside(field.far, lambda: socket.create_server((HOST, 0)))
        with serving(silent, context, listener=listener) as server:
            assert inside(field.near, lambda: asyncio.run(ask(server.port)))
        assert "tls" not in server.ends
