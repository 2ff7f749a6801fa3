"""A small worker to test the pool with: says who it is to every client, then echoes.

It speaks the real protocol over the real channel and knows nothing of endpoints.
"""

from __future__ import annotations

import os
import selectors
import socket
import time

from gateway.core import messages, wire
from gateway.worker import WorkerStart


def puppet(start: WorkerStart) -> int:
    """The entry function to handle to the pool."""
    return Puppet(start).live()


def fails_at_start(start: WorkerStart) -> int:
    """A worker that dies before it is ready."""
    del start
    return 3


def mute(start: WorkerStart) -> int:
    """A worker that never gets ready."""
    del start
    while True:
        time.sleep(60)


class Puppet:
    def __init__(self, start: WorkerStart) -> None:
        self.start, self.spec = start, start.spec
        self.listeners = list(self.spec.listeners)
        self.adopted: dict[int, list[socket.socket]] = {}
        self.clients: set[socket.socket] = set()
        self.selector = selectors.DefaultSelector()
        self.version = 0
        self.deadline: float | None = None
        self.down = wire.LineReader()
        self.aside = wire.LineReader()
        self.fds: list[int] = []

    def say(self, message: messages.Up, fds: list[int] | None = None) -> None:
        socket.send_fds(
            self.start.control, [wire.encode(message, descriptors=len(fds or []))], fds or []
        )

    def live(self) -> int:
        start, spec = self.start, self.spec
        spec.scoreboard.enter(spec.row, os.getpid())
        if not self.listeners:
            try:
                self.listeners = [
                    bind(each.host, each.port, exclusive=spec.exclusive) for each in spec.listen
                ]
            except OSError as error:
                self.say(messages.Failed("bind", str(error)))
                return 1
            self.say(
                messages.Bound(len(self.listeners)), [sock.fileno() for sock in self.listeners]
            )
        self.selector.register(start.pipe_r, selectors.EVENT_READ, self.read_pipe)
        self.selector.register(start.control, selectors.EVENT_READ, self.read_control)
        self.selector.register(spec.inbox, selectors.EVENT_READ, self.read_inbox)
        while self.deadline is None or (time.monotonic() < self.deadline and self.clients):
            if self.deadline is None:
                spec.scoreboard.beat(spec.row, time.monotonic_ns())
            for key, _ in self.selector.select(0.05):
                if key.fd in self.selector.get_map():
                    key.data(key.fileobj)
        self.say(messages.Drained(len(self.clients)))
        return 0

    def read_pipe(self, _: object) -> None:
        data = os.read(self.start.pipe_r, 65536)
        if not data:
            self.drain(5.0)
        for line in filter(None, self.down.feed(data)):
            match wire.decode(line):
                case messages.Snapshot(version):
                    if self.version == 0:
                        for sock in self.listeners:
                            self.accept_from(sock)
                        self.say(messages.Ready(version))
                    self.version = version
                    self.report()
                case messages.Drain(deadline_s):
                    self.drain(deadline_s)
                case _:
                    pass

    def report(self) -> None:
        self.say(messages.Report(self.version, len(self.clients), 0.0, 1))

    def read_control(self, _: object) -> None:
        data, fds, _flags, _addr = socket.recv_fds(self.start.control, 65536, 250)
        if not data:
            self.selector.unregister(self.start.control)
            return
        self.fds += fds
        for line in self.aside.feed(data):
            match wire.decode(line):
                case messages.Adopt(slot):
                    wanted = len(self.spec.listen)
                    taken, self.fds = self.fds[:wanted], self.fds[wanted:]
                    self.release(slot)
                    self.adopted[slot] = [socket.socket(fileno=fd) for fd in taken]
                    for sock in self.adopted[slot]:
                        self.accept_from(sock)
                case messages.Release(slot):
                    self.release(slot)
                case messages.Peer():
                    os.close(self.fds.pop(0))
                case _:
                    pass

    def release(self, slot: int) -> None:
        for sock in self.adopted.pop(slot, []):
            self.selector.unregister(sock)
            sock.close()

    def accept_from(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.selector.register(sock, selectors.EVENT_READ, self.accept)

    def accept(self, sock: socket.socket) -> None:
        try:
            client, _ = sock.accept()
        except BlockingIOError:
            return
        self.greet(client)

    def read_inbox(self, inbox: socket.socket) -> None:
        _, fds, _flags, _addr = socket.recv_fds(inbox, 128, 1)
        for fd in fds:
            self.greet(socket.socket(fileno=fd))

    def greet(self, client: socket.socket) -> None:
        client.send(f"{self.spec.slot}.{self.spec.gen}.{os.getpid()}\n".encode())
        self.clients.add(client)
        self.selector.register(client, selectors.EVENT_READ, self.echo)

    def echo(self, client: socket.socket) -> None:
        try:
            data = client.recv(4096)
        except OSError:
            data = b""
        if data:
            client.send(data)
            return
        self.selector.unregister(client)
        self.clients.discard(client)
        client.close()

    def drain(self, deadline_s: float) -> None:
        end = time.monotonic() + deadline_s
        self.deadline = end if self.deadline is None else min(self.deadline, end)
        for fileobj in (self.start.pipe_r, self.spec.inbox):
            if fileobj in self.selector.get_map() and fileobj is not self.start.pipe_r:
                self.selector.unregister(fileobj)
        for slot in list(self.adopted):
            self.release(slot)
        for sock in self.listeners:
            if sock in self.selector.get_map():
                self.selector.unregister(sock)
            sock.close()
        self.listeners.clear()


def bind(host: str, port: int, *, exclusive: bool) -> socket.socket:
    """A listener as the real worker binds it."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if not exclusive:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((host, port))
        sock.listen(1024)
        if exclusive:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except OSError:
        sock.close()
        raise
    return sock
