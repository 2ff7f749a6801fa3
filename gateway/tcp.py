"""What is asked of raw TCP descriptors, and set, that ``os`` has no call for.

How they come and go is in :mod:`gateway.tcp_calls`.

The data plane holds descriptors, not socket objects: a session is two integers. The socket object
needed for an option is made on the spot and let go of; the descriptor keeps its owner.
"""

from __future__ import annotations

import _socket
import errno
import fcntl
import os
import socket
import struct
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from gateway.core.messages import Settings
from gateway.core.session_state import Connection
from gateway.core.socket_address import SocketAddress
from gateway.core.stall import Signs
from gateway.unix import name_peer

NOBODY: SocketAddress = ("", 0)
"""What stands for the address of an end that is not there."""

_INET, _STREAM = int(socket.AF_INET), int(socket.SOCK_STREAM)
_UNIX = int(socket.AF_UNIX)
_LINGER_ZERO = struct.pack("ii", 1, 0)
_LINGER_NOT = struct.pack("ii", 0, 0)
_NO_BYTES = struct.pack("i", 0)

_TCP_INFO = struct.Struct("=1B1x2B20x1I24x2I84x1I")
"""struct tcp_info (linux/tcp.h) up to what was not sent: state; retransmits, probes; unacked;
last_data_recv, last_ack_recv (milliseconds); notsent_bytes (since Linux 4.6)."""

_CLOSED = 7
"""TCP_CLOSE (net/tcp_states.h): nothing comes or goes any more, as after a reset."""

_TCP_PATH = struct.Struct("=24x1I40x1I28x1I")
"""The same struct: unacked (segments), rtt (microseconds), total_retrans (segments)."""

_TCP_ALL = struct.Struct("=2x2B20x1I16x1I4x1I12x1I28x1I40x1I")
"""The same struct: retransmits, probes; unacked; last_data_sent; last_data_recv; rtt;
total_retrans; notsent_bytes."""

NOTHING_WAITS = Signs(waiting=False, silent_s=0.0, unanswered=0)
"""A UNIX socket's peer cannot vanish: when its process ends, the kernel closes for it."""

_SIOCOUTQNSD = 0x894B
"""linux/sockios.h: as SIOCOUTQ, without what was sent and is not acknowledged."""

_IP_BIND_ADDRESS_NO_PORT = 24
"""linux/in.h; Python names it since 3.12."""

_TCP_RTO_MAX_MS = 44
"""linux/tcp.h; since Linux 6.15."""


@contextmanager
def borrowed(fd: int) -> Iterator[_socket.socket]:
    """A socket object around ``fd`` that does not close it."""
    sock = _socket.socket(_INET, _STREAM, 0, fd)
    try:
        yield sock
    finally:
        sock.detach()


def peer_of(fd: int) -> SocketAddress:
    """The address of the other end; NOBODY, if it is gone already or not there yet.

    The client of a UNIX socket has none; its process stands in its place.
    """
    address = _address_of(fd, _socket.socket.getpeername)
    return address if isinstance(address, tuple) else name_peer(fd)


def own_address_of(fd: int) -> SocketAddress:
    """The address of this end; NOBODY, if it has none."""
    return _address_of(fd, _socket.socket.getsockname)


def _address_of(fd: int, ask: Callable[[_socket.socket], Any]) -> SocketAddress:
    # As a UNIX socket, whatever it is: Python asks for as many bytes as an address of the family
    # has, and those of the other families are shorter.
    sock = _socket.socket(_UNIX, _STREAM, 0, fd)
    try:
        address: SocketAddress = ask(sock)
    except OSError:
        return NOBODY
    finally:
        sock.detach()
    return address


def bind_source(sock: _socket.socket, source: str) -> None:
    """Dial from ``source``; raises OSError if the address is not one of this host.

    The port is chosen at the connect (ip(7), IP_BIND_ADDRESS_NO_PORT): a port that is taken before
    the endpoint is known would be taken towards all endpoints.
    """
    sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
    sock.bind((source, 0))


def arm_reset(fd: int) -> None:
    """Make the coming close send a reset, not an end of stream; ours or the kernel's."""
    _set_linger(fd, _LINGER_ZERO)


def turn_away(fd: int) -> None:
    """Close a client that nobody served: with a reset, as one in the kernel's queue gets it."""
    try:
        arm_reset(fd)
    finally:
        os.close(fd)


def disarm_reset(fd: int) -> None:
    """Make the coming close an orderly one: what was written is delivered."""
    _set_linger(fd, _LINGER_NOT)


def _set_linger(fd: int, value: bytes) -> None:
    with borrowed(fd) as sock:
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, value)
        except OSError:
            return  # cannot fail on a TCP socket; a session's end is no place to find out


def set_keepalive(sock: _socket.socket, settings: Settings) -> None:
    """Let the kernel ask idle peers whether they are still there (``man 7 tcp``)."""
    option = sock.setsockopt
    option(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    option(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _whole_seconds(settings.keepalive_time_s))
    option(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _whole_seconds(settings.keepalive_interval_s))
    option(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, min(max(settings.keepalive_probes, 1), 127))


def set_user_timeout(fd: int, timeout_s: float) -> None:
    """TCP_USER_TIMEOUT; 0 leaves the kernel's default, infinity is 24 days."""
    timeout_ms = int(min(timeout_s * 1000, 2**31 - 1))
    with borrowed(fd) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, timeout_ms)


def set_longest_gap(fd: int, gap_s: float) -> bool:
    """Bound the time between two probes or retransmissions; False: this kernel cannot.

    ``gap_s``: 1 to 120 seconds; 120 is the kernel's default.
    """
    with borrowed(fd) as sock:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_RTO_MAX_MS, int(gap_s * 1000))
        except OSError:
            return False
    return True


def count_waiting(fd: int) -> int:
    """Bytes that are unsent or not acknowledged (SIOCOUTQ, ``man 7 tcp``), an end of stream is one.

    Of a UNIX socket the memory of what its peer has not read.
    """
    return int.from_bytes(fcntl.ioctl(fd, termios.TIOCOUTQ, _NO_BYTES), sys.byteorder)


def is_waiting(fd: int) -> bool:
    """Whether bytes or an end of stream are unsent or not acknowledged (SIOCOUTQ, ``man 7 tcp``).

    A sixth of the time that :func:`read_signs` takes.
    """
    return fcntl.ioctl(fd, termios.TIOCOUTQ, _NO_BYTES) != _NO_BYTES


def has_unsent(fd: int) -> bool:
    """Whether bytes were not even sent yet, because the peer takes none (SIOCOUTQNSD).

    What a UNIX socket was given is the peer's to read already.
    """
    try:
        return fcntl.ioctl(fd, _SIOCOUTQNSD, _NO_BYTES) != _NO_BYTES
    except OSError:
        return False


def read_signs(fd: int) -> Signs:
    """What the kernel knows of the peer; nothing waits where it is a UNIX socket's."""
    with borrowed(fd) as sock:
        try:
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            return NOTHING_WAITS
    state, retransmits, probes, unacked, data_ms, ack_ms, unsent = _TCP_INFO.unpack(info)
    return Signs(
        waiting=unacked + unsent > 0 and state != _CLOSED,
        silent_s=min(data_ms, ack_ms) / 1000,
        unanswered=retransmits + probes,
    )


def read_path(fd: int) -> tuple[float, int, bool]:
    """The smoothed round-trip time in seconds, 0 if none was measured; segments ever sent again;
    and whether any wait for their acknowledgment.

    OSError: not a TCP connection.
    """
    with borrowed(fd) as sock:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_PATH.size)
    unacked, rtt_us, retransmits = _TCP_PATH.unpack(info)
    return rtt_us / 1e6, retransmits, unacked > 0


def read_connection(fd: int) -> Connection:
    """Everything that the list of sessions says of a connection. OSError: not a TCP connection."""
    with borrowed(fd) as sock:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_ALL.size)
    (
        unanswered, probes, unacked, sent_ms, received_ms, rtt_us, retransmits, unsent
    ) = _TCP_ALL.unpack(info)  # fmt: skip
    return Connection(
        rtt_s=rtt_us / 1e6,
        retransmits=retransmits,
        waiting=unacked + unsent > 0,
        unanswered=unanswered + probes,
        sent_s=sent_ms / 1e3,
        received_s=received_ms / 1e3,
    )


def _whole_seconds(duration_s: float) -> int:
    """The kernel takes 1..32767 whole seconds."""
    return min(max(round(duration_s), 1), 32767)


PORT_RANGE = "/proc/sys/net/ipv4/ip_local_port_range"


def ephemeral_ports(path: str = "") -> range:
    """The local ports that the kernel gives to connections, as far as it says.

    Under the shipped unit it says nothing (``ProcSubset=pid``), and each port may be one of them.
    """
    try:
        # Not pathlib, nor text: their code would be 0.2 MB of pages of its own in each worker.
        with open(path or PORT_RANGE, "rb", buffering=0) as file:
            low, high = file.read(64).split()
    except (OSError, ValueError):
        return range(1, 1 << 16)
    return range(int(low), int(high) + 1)


def is_connected(fd: int) -> bool:
    """Whether the handshake is over; a connection that failed is none."""
    return peer_of(fd) != NOBODY


def error_of(fd: int) -> int:
    """What a connect ended with, which the kernel tells once; 0: nothing bad, or nothing."""
    with borrowed(fd) as sock:
        return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def met_itself(fd: int, port: int) -> bool:
    """Whether a connection to ``port`` has both ends there: TCP's simultaneous open with itself.

    Happens when the kernel gives the dial the very port that it dials and nobody listens there.
    """
    own = own_address_of(fd)
    return own[1] == port and own[:2] == peer_of(fd)[:2]
