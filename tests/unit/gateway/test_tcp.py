"""What is asked of raw descriptors."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

import pytest

from gateway.tcp import ephemeral_ports, own_address_of, peer_of


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_addresses_of_both_families(host: str) -> None:
    """Both ends are told whole, whatever the family: IPv6 addresses are longer than IPv4 ones."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with (
        socket.create_server((host, 0), family=family) as server,
        socket.create_connection(server.getsockname()[:2]) as client,
        server.accept()[0] as accepted,
    ):
        assert peer_of(accepted.fileno()) == client.getsockname()
        assert own_address_of(accepted.fileno()) == server.getsockname()


def test_addresses_of_unix_sockets() -> None:
    """A path is told as text, however long; the client's process stands for its address."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as server:
        path = str(Path(folder) / ("x" * (105 - len(folder))))
        server.bind(path)
        server.listen()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            with server.accept()[0] as accepted:
                assert own_address_of(accepted.fileno()) == path
                assert peer_of(accepted.fileno()) == f"pid={os.getpid()},uid={os.getuid()}"


def test_a_peer_that_is_gone() -> None:
    """A socket that is not connected has nobody at its other end."""
    with socket.socket() as sock:
        assert peer_of(sock.fileno()) == ("", 0)


def test_ports_that_the_kernel_gives_to_connections(tmp_path: Path) -> None:
    """Where it does not say which, a dial of any port may meet itself."""
    told = tmp_path / "range"
    told.write_text("7000\t7001\n")
    assert ephemeral_ports(str(told)) == range(7000, 7002)
    assert ephemeral_ports(str(tmp_path / "nothing")) == range(1, 65536)
