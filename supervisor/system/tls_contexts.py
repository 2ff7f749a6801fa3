"""TLS contexts of the client's side, made of files that may change at any time.

It is the only place that makes TLS contexts, so the same certificate is judged the same everywhere
and with every Python.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable, Collection

from gateway.core.log import Log
from gateway.core.records import dataclass

Stamp = tuple[tuple[int, int], tuple[int, int, int]]
Stamps = tuple[Stamp | None, ...]

SETTLE_S = 1.0
"""For so long a file that is written in place must stay the same before it is used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """The files that a TLS context is made of, and whether the server's certificate is verified.

    An empty ``ca_file`` means the CA certificates of the system.
    """

    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    verify: bool = True


@dataclass(slots=True)
class _Loaded:
    """A context that is in use, and the stamps that its files had when it was made of them.

    ``seen``: other stamps that the files have now, ``seen_at`` since when; ``told``: the log knows
    that the files cannot be used.
    """

    context: ssl.SSLContext
    stamps: Stamps
    seen: Stamps = ()
    seen_at: float = 0.0
    error: str = ""
    told: bool = False


class TlsContexts:
    """TLS contexts, loaded when first needed and loaded again when one of their files changed.

    Files that changed and cannot be used, because they are half written for example, leave the
    context as it was; if that lasts for SETTLE_S, the log says so. A file that is written in place
    is used when it has stayed the same for SETTLE_S: the beginning of a bundle is a bundle, too.
    ``clock`` is monotonic.
    """

    def __init__(
        self, log: Log | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._log = log
        self._clock = clock
        self._loaded: dict[TlsFiles, _Loaded] = {}
        self._changed = False
        """Whether files were loaded again since :meth:`look`, whoever asked for them."""

    def get(self, files: TlsFiles) -> ssl.SSLContext:
        """Raises OSError if a file cannot be used and never could; the text names it."""
        stamps = tuple(map(_stamp, _paths(files)))
        held = self._loaded.get(files)
        if held is None:
            held = self._loaded[files] = _Loaded(load(files), stamps)
        elif held.stamps == stamps:
            held.seen, held.error, held.told = (), "", False
        else:
            self._renew(files, held, stamps)
        return held.context

    def look(self) -> bool:
        """Use the files that changed, of every context in use; whether there was one.

        A handshake may have found them before: that counts, too.
        """
        for files in list(self._loaded):
            self.get(files)
        changed, self._changed = self._changed, False
        return changed

    def retain(self, paths: Collection[str]) -> None:
        """Forget contexts of other files than these: nobody asks for them any more."""
        kept = {*paths, ""}
        self._loaded = {
            files: held
            for files, held in self._loaded.items()
            if {files.ca_file, files.cert_file, files.key_file} <= kept
        }

    def _renew(self, files: TlsFiles, held: _Loaded, stamps: Stamps) -> None:
        now = self._clock()
        if stamps != held.seen:
            held.seen, held.seen_at, held.error, held.told = stamps, now, "", False
            if _written_in_place(held.stamps, stamps):
                return
        settled = now - held.seen_at >= SETTLE_S
        if not held.error and (settled or not _written_in_place(held.stamps, stamps)):
            try:
                held.context = load(files)
            except OSError as error:
                held.error = str(error)
            else:
                held.stamps = stamps
                self._changed = True
                if self._log is not None:
                    self._log.info("TLS files changed", files=_named(files))
        if held.error and settled and not held.told:
            held.told = True
            if self._log is not None:
                self._log.warn(
                    "changed TLS files cannot be used, those before are kept",
                    files=_named(files),
                    error=held.error,
                )


def unverified() -> ssl.SSLContext:
    """A context that verifies nothing: for a handshake that only spares the server's log."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _paths(files: TlsFiles) -> tuple[str, ...]:
    """The files and folders whose change makes a new context necessary."""
    paths = [path for path in (files.cert_file, files.key_file) if path]
    if files.ca_file:
        return (files.ca_file, *paths)
    system = ssl.get_default_verify_paths()
    return (*(path for path in (system.cafile, system.capath) if path), *paths)


def _named(files: TlsFiles) -> list[str]:
    """The files that the operator named; for the CA certificates of the system, their places."""
    return list(_paths(files))


def _stamp(path: str) -> Stamp | None:
    """What changes with the file, its identity first; None while there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    identity = (status.st_dev, status.st_ino)
    return identity, (status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _written_in_place(before: Stamps, now: Stamps) -> bool:
    """Whether a file is the same one with other contents, and so perhaps not all of it yet."""
    pairs = zip(before, now, strict=True)
    return any(a and b and a[0] == b[0] and a[1] != b[1] for a, b in pairs)


def load(files: TlsFiles) -> ssl.SSLContext:
    """A context for the client's side; raises OSError, whose text names the file."""
    try:
        context = ssl.create_default_context(cafile=files.ca_file or None)
    except OSError as error:
        raise OSError(f"cannot load CA certificates from {files.ca_file}: {error}") from None
    # Python 3.13 turns the strict rules on; private CAs seldom follow them and Go never asks.
    context.verify_flags &= ~ssl.VerifyFlags.VERIFY_X509_STRICT
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    context.hostname_checks_common_name = False  # no client written in Go takes such a certificate
    if not files.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if files.cert_file:
        load_certificate(context, files.cert_file, files.key_file)
    return context


def load_certificate(context: ssl.SSLContext, cert_file: str, key_file: str) -> None:
    """Let the context show this certificate; raises OSError, whose text names the file."""
    try:
        context.load_cert_chain(cert_file, key_file or None, password=_no_password)
    except (OSError, ValueError) as error:
        raise OSError(f"cannot load {cert_file} and its key: {error}") from None


def _no_password() -> str:
    """An encrypted key is an error; OpenSSL would ask for the password on the terminal."""
    raise ValueError("the key is encrypted")
