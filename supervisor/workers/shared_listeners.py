"""The listening UNIX sockets: one for each address, which all workers share.

SO_REUSEPORT does not exist for them, so there is one queue of clients, and whichever worker is free
accepts from it. The master makes the sockets before the first worker is forked; each worker is born
with them. So no client depends on a certain worker, and nothing needs to be adopted.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import select
import socket
import stat
from collections.abc import Callable, Iterable

from gateway.core.address import Address
from gateway.core.records import dataclass
from gateway.core.unix_address import UnixAddress, socket_name
from supervisor.core.workers.descriptor_names import Kind, compose_name
from supervisor.system.unix_listener import (
    NO_FILE,
    FileId,
    bind_unix,
    find_group,
    give_to_group,
    is_there,
    remove_file,
    why_failed,
)
from supervisor.workers.descriptor_store import NO_DESCRIPTOR_STORE, DescriptorStore

LOCK_S = 5.0
"""How long another process may be about to bind the same path; it takes it a millisecond."""

LOOK_AGAIN_S = 0.02


@dataclass(frozen=True, slots=True)
class InheritedShared:
    """A listening UNIX socket of a former master, or of the service manager.

    ``file``: what the former master made, NO_FILE if it made none. ``lent``: the service manager
    made it, and goes on listening when the gateway has ended.
    """

    name: str
    fd: int
    file: FileId = NO_FILE
    lent: bool = False


@dataclass(frozen=True, slots=True)
class _Listener:
    address: UnixAddress
    sock: socket.socket
    file: FileId
    name: str
    lent: bool = False


class SharedListeners:
    """Owns the sockets until :meth:`close`, and the files until :meth:`remove_files`.

    ``on_left(path, why)``: a file cannot be removed; each is told once.
    """

    def __init__(
        self,
        store: DescriptorStore = NO_DESCRIPTOR_STORE,
        on_left: Callable[[str, str], None] = lambda _path, _why: None,
    ) -> None:
        self._store = store
        self._on_left = on_left
        self._left: set[str] = set()
        """Files that cannot be removed."""
        self._listeners: list[_Listener] = []
        self._former: list[tuple[str, socket.socket, FileId]] = []
        """Of addresses that are not listened on any more, until our workers are ready."""
        self._freed: set[str] = set()
        """Names of sockets that were shut down: the service manager is just closing its own."""
        self.made_anew = False
        """Whether one had to be made: workers of a former master do not accept from it."""

    @property
    def socks(self) -> tuple[socket.socket, ...]:
        """Those that end with the gateway."""
        return tuple(each.sock for each in self._listeners if not each.lent)

    @property
    def lent(self) -> tuple[socket.socket, ...]:
        """Those that are the service manager's."""
        return tuple(each.sock for each in self._listeners if each.lent)

    def named_descriptors(self) -> dict[str, int]:
        """All of them by name; they stay ours."""
        former = {name: sock.fileno() for name, sock, _ in self._former}
        return former | {each.name: each.sock.fileno() for each in self._listeners}

    def take_over(self, listen: Iterable[Address], inherited: Iterable[InheritedShared]) -> None:
        """Own the inherited sockets; those of other addresses until :meth:`drop_former`.

        OSError: the file of one cannot be given its mode and group.
        """
        for left in inherited:
            sock = socket.socket(fileno=left.fd)
            if not left.lent and _is_shut(sock):  # and no client will ever be accepted from it
                self._freed.add(os.fsdecode(sock.getsockname()))
                self._store.remove(left.name)
                sock.close()
                continue
            address = _find_address(sock, left.file, listen)
            if address is None:
                self._former.append((left.name, sock, left.file))
                continue
            # A socket unit's name for it would mean nothing to the next image.
            name = self._new_name(Kind.LENT) if left.lent else left.name
            self._listeners.append(_Listener(address, sock, left.file, name, left.lent))
            sock.setblocking(False)
        for each in self._listeners:
            if each.file != NO_FILE:
                _set_permissions(each.address)

    async def open(self, listen: Iterable[Address]) -> None:
        """Make what is missing. OSError: one cannot be made; call again to go on from there."""
        for address in listen:
            if not isinstance(address, UnixAddress) or self._has(address):
                continue
            freed = socket_name(str(address)) in self._freed
            sock, file = await _listen_patiently(address, freed=freed)
            name = self._new_name(Kind.SHARED, *file)
            self._listeners.append(_Listener(address, sock, file, name))
            self.made_anew = True
            self._store.keep(name, sock.fileno())

    def _has(self, address: UnixAddress) -> bool:
        return any(each.address.path == address.path for each in self._listeners)

    def drop_former(self) -> None:
        """Close sockets of addresses that are not listened on any more, and remove their files.

        Not before our workers are ready: until then those of the former master serve there.
        """
        for name, sock, file in self._former:
            self._store.remove(name)
            path = sock.getsockname()
            if isinstance(path, str) and file != NO_FILE:
                self._remove_file(path, file)
            sock.close()
        self._former.clear()

    def _new_name(self, kind: Kind, *numbers: int) -> str:
        """What a descriptor is called; it says which file is its own, for the next master."""
        used = self.named_descriptors()
        names = (compose_name(kind, n, *numbers) for n in itertools.count())
        return next(name for name in names if name not in used)

    def missing_files(self) -> list[str]:
        """The addresses whose file is gone or was replaced, so that no client reaches them."""
        return [
            str(each.address)
            for each in self._listeners
            if each.file != NO_FILE and not is_there(each.address.path, each.file)
        ]

    def renewed(self) -> list[str]:
        """The addresses whose file a former master had lost, until :meth:`drop_former`."""
        lost = {os.fsdecode(sock.getsockname()) for _, sock, _ in self._former}
        texts = [str(each.address) for each in self._listeners]
        return [text for text in texts if socket_name(text) in lost]

    def remove_files(self) -> None:
        """Nobody finds the sockets any more; files of other processes in their place stay."""
        for each in self._listeners:
            if each.file != NO_FILE:
                self._remove_file(each.address.path, each.file)

    def _remove_file(self, path: str, file: FileId) -> None:
        if (why := remove_file(path, file)) and path not in self._left:
            self._left.add(path)
            self._on_left(path, why)

    def shut(self) -> None:
        """Shut down, so that nobody can connect, whoever else holds a duplicate; and close."""
        self.remove_files()
        self.drop_former()
        for sock in self.socks:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RD)
        for each in self._listeners:
            self._store.remove(each.name)
        self.close()

    def leave_open(self) -> None:
        """Forget the sockets without closing them: the image before this one is executed again."""
        for sock in (*(each.sock for each in self._listeners), *(each[1] for each in self._former)):
            sock.detach()
        self._listeners.clear()
        self._former.clear()

    def close(self) -> None:
        for each in self._listeners:
            each.sock.close()
        for _, sock, _ in self._former:
            sock.close()
        self._listeners.clear()
        self._former.clear()


def is_listening_unix(fd: int) -> bool:
    """Whether the descriptor is a UNIX stream socket that listens."""
    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
        return False
    with socket.socket(fileno=os.dup(fd)) as sock:
        option = sock.getsockopt
        return (
            sock.family == socket.AF_UNIX
            and sock.type == socket.SOCK_STREAM
            and bool(option(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
        )


def _is_shut(sock: socket.socket) -> bool:
    """Whether a listening UNIX socket was shut down: it says that it listens, and refuses all."""
    poll = select.poll()
    poll.register(sock, select.POLLRDHUP)
    return bool(poll.poll(0))


async def _listen_patiently(address: UnixAddress, *, freed: bool) -> tuple[socket.socket, FileId]:
    """``freed``: that the name is in use will pass."""
    loop = asyncio.get_running_loop()
    until = loop.time() + LOCK_S
    while True:
        try:
            return bind_unix(address)
        except BlockingIOError:
            why = f"another process has held {address.path}.lock for {LOCK_S:g} s"
        except OSError as error:
            why = why_failed(address, error)
            if not freed or error.errno != errno.EADDRINUSE:
                raise OSError(f"cannot listen on {address}: {why}") from error
        if loop.time() >= until:
            raise OSError(f"cannot listen on {address}: {why}")
        await asyncio.sleep(LOOK_AGAIN_S)


def _find_address(
    sock: socket.socket, file: FileId, listen: Iterable[Address]
) -> UnixAddress | None:
    """The listen address at which clients reach this socket; None if they reach it at none.

    Where the file of a service manager's socket is, is the service manager's business.
    """
    name = os.fsdecode(sock.getsockname())
    for address in listen:
        if isinstance(address, UnixAddress) and socket_name(str(address)) == name:
            return address if file == NO_FILE or is_there(address.path, file) else None
    return None


def _set_permissions(address: UnixAddress) -> None:
    """The configuration may have changed since the file was made."""
    try:
        give_to_group(address, find_group(address.group))
        if stat.S_IMODE(os.lstat(address.path).st_mode) != address.mode:
            os.chmod(address.path, address.mode)
    except OSError as error:
        raise OSError(f"cannot listen on {address}: {error.strerror}") from error
