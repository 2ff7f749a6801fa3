"""Servers for the TLS check: honest ones, and all the wrong ones; each owns a thread."""

from __future__ import annotations

import contextlib
import datetime
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self

import trustme

Talk = Callable[[socket.socket], None]


class Authority:
    """A certificate authority and its bundle in a file."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self.ca = trustme.CA()
        self.directory = directory
        self.file = str(directory / f"{name}.pem")
        self.ca.cert_pem.write_to_path(self.file)

    def context(
        self,
        *names: str,
        want_client_certificate: bool = False,
        version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
        certificate: trustme.LeafCert | None = None,
    ) -> ssl.SSLContext:
        """A server's side, with a certificate for ``names``."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = context.maximum_version = version
        (certificate or self.ca.issue_cert(*names)).configure_cert(context)
        if want_client_certificate:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.file)
        return context

    def client_files(self, name: str = "client") -> tuple[str, str]:
        """A client certificate and its key, as files."""
        return self._write(name, self.ca.issue_cert(f"{name}.test"))

    def server_files(
        self, *names: str, called: str = "server", not_after: datetime.datetime | None = None
    ) -> tuple[str, str, str]:
        """The bundle, and a server's certificate for ``names`` with its key, as files."""
        return self.file, *self._write(called, self.ca.issue_cert(*names, not_after=not_after))

    def _write(self, called: str, leaf: trustme.LeafCert) -> tuple[str, str]:
        cert, key = self.directory / f"{called}.pem", self.directory / f"{called}.key"
        leaf.cert_chain_pems[0].write_to_path(str(cert))
        leaf.private_key_pem.write_to_path(str(key))
        return str(cert), str(key)


class Server:
    """Accepts on loopback and talks to one client after the other; counts the good handshakes."""

    def __init__(
        self, talk: Talk | ssl.SSLContext, port: int = 0, *, host: str = "127.0.0.1"
    ) -> None:
        self._talk = talk
        self._sock = socket.create_server((host, port))
        self.port: int = self._sock.getsockname()[1]
        self.connections = 0
        self.complaints: list[str] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        self._thread.join(60)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._sock.accept()
            except OSError:
                return
            self.connections += 1
            with sock, contextlib.suppress(OSError):
                sock.settimeout(60)
                if isinstance(self._talk, ssl.SSLContext):
                    self._shake_hands(sock, self._talk)
                else:
                    self._talk(sock)

    def _shake_hands(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        try:
            with context.wrap_socket(sock, server_side=True) as tls:
                if data := tls.recv(100):
                    self.complaints.append(f"data after the handshake: {data!r}")
        except ssl.SSLError as error:
            self.complaints.append(error.reason or str(error))


class LateHandshake:
    """A script that shakes hands once ``go_on`` is set; ``heard`` is what each client said then."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.go_on = threading.Event()
        self.heard: list[bytes] = []
        self._context = context

    def __call__(self, sock: socket.socket) -> None:
        self.go_on.wait(60)
        with self._context.wrap_socket(sock.dup(), server_side=True) as tls:
            self.heard.append(tls.recv(1000))


def plaintext(sock: socket.socket) -> None:
    """What an HTTP server says to a TLS handshake."""
    sock.recv(1000)
    sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def silent(sock: socket.socket) -> None:
    """Says nothing until the client gives up."""
    while sock.recv(1000):
        pass


def hang_up(sock: socket.socket) -> None:
    """Reads and closes."""
    sock.recv(1000)


def reset(sock: socket.socket) -> None:
    """Resets the connection."""
    sock.recv(10)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
