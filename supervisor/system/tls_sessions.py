"""TLS sessions to resume: a resumed handshake costs the server no signature."""

from __future__ import annotations

import ssl
from collections.abc import Hashable

from gateway.core.records import dataclass
from supervisor.system.tls import TlsClient

FULL_HANDSHAKE_S = 600.0
"""A session is resumed for so long at most: only a full handshake shows the certificate."""


@dataclass(frozen=True, slots=True)
class _Held:
    """A session, the context that it belongs to, and when its server showed its certificate."""

    session: ssl.SSLSession
    context: ssl.SSLContext
    verified_at: float


class TlsSessions:
    """Sessions by server.

    One that is older than FULL_HANDSHAKE_S, or of a context whose files changed, is not resumed.
    ``now`` is of the monotonic clock.
    """

    def __init__(self) -> None:
        self._held: dict[Hashable, _Held] = {}

    def find(self, server: Hashable, context: ssl.SSLContext, now: float) -> ssl.SSLSession | None:
        held = self._held.get(server)
        if held is None or held.context is not context:
            return None
        return held.session if now - held.verified_at < FULL_HANDSHAKE_S else None

    def keep(
        self, server: Hashable, context: ssl.SSLContext, client: TlsClient, now: float
    ) -> None:
        """Remember the newest session of a connection whose handshake was completed."""
        session = client.session
        if session is None:
            return
        held = self._held.get(server)
        if held is None or not client.resumed:
            self._held[server] = _Held(session, context, now)
            fresh = now - FULL_HANDSHAKE_S
            self._held = {key: each for key, each in self._held.items() if each.verified_at > fresh}
        else:
            self._held[server] = _Held(session, context, held.verified_at)

    def forget(self, server: Hashable) -> None:
        self._held.pop(server, None)
