"""The demo's ports: the usual ones for one demo at a time, others for the rest."""

from __future__ import annotations

import socket

from supervisor.demo.backends import HOST

LISTEN_PORT, ADMIN_PORT = 23790, 23791
"""As the gateway's own default, and one beside it; used if they are free."""


def check_loopback() -> None:
    """OSError: loopback cannot be reached, as in a new network namespace, where it is down.

    A socket can be bound there all the same, so nothing else would say so. No packet is sent.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((HOST, LISTEN_PORT))
        except OSError as error:
            raise OSError(
                f"cannot reach {HOST}: {error.strerror}; expected `lo` to be up"
            ) from None


def claim_usual_ports() -> socket.socket | None:
    """The right to the demo's usual ports while the socket is open; None: another demo has it.

    Between the look whether a port is free and the gateway's bind, a second demo would find it free
    too. A name of a unix socket has one owner, and the kernel takes it back whatever happens.
    """
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(f"\0etcd-gateway-demo-{LISTEN_PORT}")
    except OSError:
        claim.close()
        return None
    return claim


def choose_port(preferred: int) -> int:
    """``preferred`` if nobody has it, else one of the kernel's choice."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((HOST, preferred))
        except OSError:
            sock.bind((HOST, 0))
        port: int = sock.getsockname()[1]
        return port
