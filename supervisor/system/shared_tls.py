"""What all handshakes with endpoints share: the contexts, and who watches when certificates end."""

from __future__ import annotations

from gateway.core.log import Log
from supervisor.system.certificate_watch import CertificateWatch
from supervisor.system.tls_contexts import TlsContexts


class SharedTls:
    """The TLS gate, the prober and member sync of one process have one of these together.

    ``log`` hears of files that cannot be used, and of certificates that end soon.
    """

    def __init__(self, log: Log | None = None) -> None:
        self.contexts = TlsContexts(log)
        self.certificates = CertificateWatch(log)
