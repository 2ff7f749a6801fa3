"""The listeners of a former master, fitted to the addresses that are configured now.

Workers of the former master hold them until those of this one are ready. So an address that stays
keeps its socket, and nobody who waits there is lost. An address that overlaps an old one (all
interfaces, and one of them) is bound beside it, which needs SO_REUSEPORT (socket(7)).
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence

from gateway.core.address import HostPort
from gateway.descriptors import close_all
from gateway.ingress.listener import family_of, open_listener


def fit_listeners(
    former: Mapping[int, int], wanted: Sequence[HostPort], *, opened: set[HostPort]
) -> dict[int, int]:
    """A descriptor for each of ``wanted``, by its number there; none if a worker is to bind them.

    ``former`` has those of before, which stay the caller's, also if they are not in the result.
    ``opened``: addresses that workers of before have, or that were bound for an earlier slot; those
    that are bound for this one are added. OSError: one cannot be bound; its text says which.
    """
    fitted: dict[int, int] = {}
    with _seen(former.values()) as socks:
        left = {fd: sock for fd, sock in socks.items() if _is_listening(sock)}
        ports = {_port(sock) for sock in left.values()}
        for number, address in enumerate(wanted):
            same = (fd for fd, sock in left.items() if _is_bound_to(sock, address))
            if (fd := next(same, None)) is not None:
                fitted[number] = fd
                del left[fd]
    if not any(address.port in ports or address in opened for address in wanted):
        return {}
    missing = {number: each for number, each in enumerate(wanted) if number not in fitted}
    made: dict[int, int] = {}
    try:
        for number, address in missing.items():
            exclusive = address not in opened and address.port not in ports
            made[number] = open_listener(address, exclusive=exclusive).detach()
    except BaseException:
        close_all(list(made.values()))
        raise
    opened.update(missing.values())
    return fitted | made


def find_bound(former: Iterable[int], wanted: Iterable[HostPort]) -> set[HostPort]:
    """Those of ``wanted`` on which one of these sockets listens; they stay the caller's."""
    with _seen(former) as socks:
        listening = [sock for sock in socks.values() if _is_listening(sock)]
        return {each for each in wanted if any(_is_bound_to(sock, each) for sock in listening)}


def _is_listening(sock: socket.socket) -> bool:
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _port(sock: socket.socket) -> int:
    port: int = sock.getsockname()[1]
    return port


def _is_bound_to(sock: socket.socket, address: HostPort) -> bool:
    """Whether binding to the address would make such a socket."""
    family, host = family_of(address)
    if sock.family != family:
        return False
    if family == socket.AF_INET6:
        only_v6 = bool(sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))
        if only_v6 != bool(address.host):
            return False
    bound_host, bound_port = sock.getsockname()[:2]
    return (_packed(bound_host), bound_port) == (_packed(host), address.port)


def _packed(host: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)


@contextlib.contextmanager
def _seen(fds: Iterable[int]) -> Iterator[dict[int, socket.socket]]:
    """Descriptors as sockets, without a duplicate: there may be no descriptor left for one.

    They are not closed, also if one of them is no socket.
    """
    socks: dict[int, socket.socket] = {}
    try:
        for fd in fds:
            socks[fd] = socket.socket(fileno=fd)
        yield socks
    finally:
        for sock in socks.values():
            sock.detach()
