"""When the certificates of the endpoints end: what handshakes showed, and the warnings in the log.

The TLS gate and the prober tell it of each full handshake; status, page and metrics ask it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from gateway.core.address import HostPort
from gateway.core.log import Log
from gateway.core.unix_address import is_unix
from supervisor.core.certificates import CertificateEnds, Place, find_end
from supervisor.system.tls import TlsClient


class CertificateWatch:
    """``wall`` is in seconds since the epoch, as certificates are. ``log`` may be nobody."""

    def __init__(self, log: Log | None = None, *, wall: Callable[[], float] = time.time) -> None:
        self._log = log
        self._wall = wall
        self.ends = CertificateEnds()
        self.warned = False
        """Whether the log was told something since whoever records that has set this to False."""

    def take(self, place: Place, client: TlsClient) -> None:
        """A handshake is over, or failed after the server had shown its certificate."""
        if client.resumed or (certificate := client.certificate) is None:
            return  # a resumed session repeats what an earlier handshake showed
        not_after = find_end(certificate)
        if not_after is None:
            return
        now = self._wall()
        endpoint, address, port = place
        if self.ends.take(place, not_after, now) and self._log is not None:
            self.warned = True
            self._log.warn(
                "certificate ends soon",
                endpoint=endpoint,
                address=address if is_unix(address) else str(HostPort(address, port)),
                not_after=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(not_after)),
                days_left=round((not_after - now) / 86400, 1),
            )
