"""The TCP sockets of this host that listen on a port, or are connected to it: from the kernel, by
sock_diag(7).

Who listens is answered in 0.2 ms, however many connections the host has. /proc/net/tcp, which is
read where netlink is forbidden, takes 5 ms for each thousand connections.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Collection, Iterator
from itertools import islice
from typing import TextIO

from gateway.core.socket_address import address_text
from supervisor.core.admin.foreign_listeners import Listener

NETLINK_SOCK_DIAG = 4
_BY_FAMILY = 20
_REQUEST_DUMP = 0x301
_DONE, _ERROR = 3, 2
_LISTEN = 10
"""TCP_LISTEN: include/net/tcp_states.h."""
_LISTEN_COLUMN = " 0A "
"""The same in a line of /proc/net/tcp."""
_CONNECTED = sum(1 << state for state in (1, 4, 5, 8, 9, 11))
"""ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING: a process may hold these."""
NET = "/proc/self/net"
LINES = 250
"""Lines of /proc/net/tcp in a piece."""
_V6_ONLY = 11
"""INET_DIAG_SKV6ONLY: include/uapi/linux/inet_diag.h."""

_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBBxIHH16s16sI8s")
_ANSWER = struct.Struct("=BBBBHH16s16sI8sIIIII")
_ATTRIBUTE = struct.Struct("=HH")


def listeners(ports: Collection[int]) -> list[Listener]:
    """Sockets of both families that listen on one of these. OSError: netlink is forbidden here."""
    found: list[Listener] = []
    for port in ports:
        for answers in _dump(1 << _LISTEN, port=port):
            # Old kernels ignore the port in the request.
            found += [each for each in map(_listener, answers) if each.port == port]
    return found


def listeners_from_proc(ports: Collection[int], net: str = NET) -> list[Listener]:
    """The same from /proc, which does not say whether an IPv6 socket accepts IPv4 clients.

    The tables are read once for all ports.
    """
    found = []
    for lines in _tables(net):
        for line in lines:
            if _LISTEN_COLUMN not in line:  # to split each line takes twice as long
                continue
            fields = line.split()
            address, _, hexport = fields[1].partition(":")
            if int(fields[3], 16) == _LISTEN and (port := int(hexport, 16)) in ports:
                host = _host_of(address)
                found.append(Listener(host, port, int(fields[9]), int(fields[7])))
    return found


def clients(port: int) -> Iterator[dict[str, int]]:
    """Sockets of this host that are connected to ``port`` anywhere: address to inode, in pieces.

    The address is the socket's own, as the access log writes it. A piece takes about a millisecond.
    OSError: netlink is forbidden here.
    """
    for answers in _dump(_CONNECTED, peer_port=port):
        yield dict(_client(body) for body in answers if _peer_port(body) == port)


def clients_from_proc(port: int, net: str = NET) -> Iterator[dict[str, int]]:
    """The same from /proc; a piece is LINES lines."""
    for lines in _tables(net):
        while some := list(islice(lines, LINES)):
            found = {}
            for line in some:
                fields = line.split()
                state = 1 << int(fields[3], 16)
                if state & _CONNECTED and int(fields[2].rpartition(":")[2], 16) == port:
                    address, _, hexport = fields[1].partition(":")
                    own = address_text((_host_of(address), int(hexport, 16)))
                    found[own] = int(fields[9])
            yield found


def _tables(net: str) -> Iterator[TextIO]:
    """The tables of both families, without their first line; OSError: they may not be read.

    A host whose kernel has no IPv6 (``ipv6.disable=1``) has the first one only.
    """
    for name in ("tcp", "tcp6"):
        try:
            lines = open(f"{net}/{name}", encoding="ascii")  # noqa: SIM115 - closed below
        except FileNotFoundError:
            if name == "tcp":
                raise
            return
        with lines:
            next(lines)
            yield lines


def _dump(states: int, *, port: int = 0, peer_port: int = 0) -> Iterator[list[bytes]]:
    """What the kernel says of the sockets of both families in these states, in pieces."""
    with socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, NETLINK_SOCK_DIAG
    ) as netlink:
        for family in (socket.AF_INET, socket.AF_INET6):
            question = _question(family, states, port=port, peer_port=peer_port)
            netlink.sendto(question, (0, 0))
            yield from _answers(netlink)


def _question(family: int, states: int, *, port: int = 0, peer_port: int = 0) -> bytes:
    ports = socket.htons(port), socket.htons(peer_port)
    body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, states, *ports, b"", b"", 0, b"\xff" * 8)
    return _HEADER.pack(_HEADER.size + len(body), _BY_FAMILY, _REQUEST_DUMP, 1, 0) + body


def _answers(netlink: socket.socket) -> Iterator[list[bytes]]:
    """What each recv() brings. The kernel answers inside of these calls, so none of them waits."""
    while True:
        data = netlink.recv(65536)
        bodies: list[bytes] = []
        while data:
            size, kind, _, _, _ = _HEADER.unpack_from(data)
            body, data = data[_HEADER.size : size], data[(size + 3) & ~3 :]
            if kind == _DONE:
                yield bodies
                return
            if kind == _ERROR:
                raise OSError(-struct.unpack_from("=i", body)[0], "sock_diag")
            bodies.append(body)
        yield bodies


def _peer_port(body: bytes) -> int:
    return socket.ntohs(_ANSWER.unpack_from(body)[5])


def _client(body: bytes) -> tuple[str, int]:
    """The socket's own address, and its inode."""
    family, _, _, _, sport, _, source, *_, inode = _ANSWER.unpack_from(body)
    return address_text((_literal(family, source), socket.ntohs(sport))), inode


def _literal(family: int, packed: bytes) -> str:
    return socket.inet_ntop(family, packed if family == socket.AF_INET6 else packed[:4])


def _listener(body: bytes) -> Listener:
    family, _, _, _, sport, _, source, *_, uid, inode = _ANSWER.unpack_from(body)
    host = _literal(family, source)
    attributes, v6_only = body[_ANSWER.size :], False
    while len(attributes) > _ATTRIBUTE.size:
        size, kind = _ATTRIBUTE.unpack_from(attributes)
        if kind == _V6_ONLY:
            v6_only = bool(attributes[_ATTRIBUTE.size])
        attributes = attributes[(size + 3) & ~3 :]
    return Listener(host, socket.ntohs(sport), inode, uid, v6_only)


def _host_of(text: str) -> str:
    """``0100007F``: 32-bit words in the byte order of the machine."""
    words = [text[i : i + 8] for i in range(0, len(text), 8)]
    packed = b"".join(struct.pack("=I", int(word, 16)) for word in words)
    return str(ipaddress.ip_address(packed))
