"""Servers to probe: each takes connections in a thread, does one thing, and notes how they end."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator

Script = Callable[[socket.socket], None]


class Server:
    """Listens on a port of the kernel's choice; ``ends`` says how each connection ended.

    ``eof``: the peer closed its direction; ``reset``: it reset the connection; ``tls``: the
    handshake failed; ``timeout``: nothing came for five seconds.
    """

    def __init__(
        self,
        script: Script,
        context: ssl.SSLContext | None = None,
        port: int = 0,
        listener: socket.socket | None = None,
    ) -> None:
        self.ends: list[str] = []
        self.accepted = 0
        self.open = 0
        self._script = script
        self._context = context
        self._sock = listener or socket.create_server(("127.0.0.1", port))
        self.port: int = self._sock.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        for thread in self._threads:
            thread.join(60)

    def _accept(self) -> None:
        while True:
            try:
                conn = self._sock.accept()[0]
            except OSError:
                return
            self.accepted += 1
            thread = threading.Thread(target=self._serve, args=(conn,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, conn: socket.socket) -> None:
        self.open += 1
        try:
            conn.settimeout(10)
            with contextlib.ExitStack() as stack:
                stack.enter_context(conn)
                if self._context is not None:
                    conn = stack.enter_context(self._context.wrap_socket(conn, server_side=True))
                self._script(conn)
                while conn.recv(65536):
                    pass
            self.ends.append("eof")
        except ConnectionError:
            self.ends.append("reset")
        except ssl.SSLError:
            self.ends.append("tls")
        except TimeoutError:
            self.ends.append("timeout")
        finally:
            self.open -= 1


@contextlib.contextmanager
def serving(
    script: Script,
    context: ssl.SSLContext | None = None,
    port: int = 0,
    listener: socket.socket | None = None,
) -> Iterator[Server]:
    """The server, closed afterwards; ``listener``: use that socket, and own it."""
    server = Server(script, context, port, listener)
    try:
        yield server
    finally:
        server.close()


def silent(conn: socket.socket) -> None:
    """Accepts and says nothing."""


def greet(conn: socket.socket) -> None:
    """Speaks first, as mail and database servers do."""
    conn.sendall(b"220 welcome\r\n" * 100)


def answer(status: str, body: bytes = b"", *, framed: bool = True) -> Script:
    """Reads a request and answers it; ``framed``: with a Content-Length, else closed after it."""

    def script(conn: socket.socket) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            if not (data := conn.recv(65536)):
                return
            request += data
        length = f"Content-Length: {len(body)}\r\n" if framed else ""
        conn.sendall(f"HTTP/1.1 {status}\r\n{length}Connection: close\r\n\r\n".encode() + body)
        if not framed:
            conn.shutdown(socket.SHUT_WR)

    return script
