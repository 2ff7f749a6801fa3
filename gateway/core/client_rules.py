"""Who may come, and whose connections begin with a PROXY protocol header."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.core.networks import Networks
from gateway.core.socket_address import SocketAddress, packed

UNIX = "unix"
"""The word of ``--proxy-in`` for peers on UNIX sockets."""


class ClientRules:
    """``--allow`` and ``--proxy-in``, asked once or twice for each client.

    Only IP addresses are judged: who connects to a UNIX socket had the permission to.
    """

    __slots__ = ("_allowed", "_proxies", "_unix_proxies", "everybody")

    def __init__(self, allow: Iterable[str] = (), proxy_in: Iterable[str] = ()) -> None:
        words = tuple(proxy_in)
        self._allowed = Networks(allow)
        self._proxies = Networks(word for word in words if word != UNIX)
        self._unix_proxies = UNIX in words
        self.everybody = not self._allowed
        """Nobody is refused."""

    def sends_header(self, peer: SocketAddress) -> bool:
        """Whether a header is required of this peer."""
        if isinstance(peer, tuple):
            return self._proxies.has(packed(peer[0]))
        return self._unix_proxies

    def admits_peer(self, peer: SocketAddress) -> bool:
        """Whether this peer may come as far as its header, or as a client if it sends none."""
        return self.sends_header(peer) or self.admits_client(peer)

    def admits_client(self, client: SocketAddress) -> bool:
        """Whether the client with this original address may come."""
        return self.everybody or not isinstance(client, tuple) or self._allows(client)

    def _allows(self, client: tuple[str, int]) -> bool:
        return self._allowed.has(packed(client[0]))
