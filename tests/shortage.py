"""A host that runs out of something at one exact call: seccomp's user notification (seccomp(2)).

``python -m tests.shortage SOCKET COMMAND...`` runs a command whose calls that make descriptors or
processes are announced to :class:`Shortage` in the test before they happen, those of its children
too. The test says which one fails, and how.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import math
import os
import platform
import select
import socket
import struct
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from typing import Self

from tests.refused_calls import Program

CALLS = {
    2: "open", 22: "pipe", 32: "dup", 41: "socket", 43: "accept",
    46: "sendmsg", 47: "recvmsg", 53: "socketpair",
    56: "clone", 57: "fork", 58: "vfork", 72: "fcntl", 213: "epoll_create", 257: "openat",
    282: "signalfd", 283: "timerfd_create", 284: "eventfd", 288: "accept4", 289: "signalfd4",
    290: "eventfd2", 291: "epoll_create1", 293: "pipe2", 294: "inotify_init1", 319: "memfd_create",
    434: "pidfd_open", 435: "clone3", 437: "openat2",
}  # fmt: skip
"""Of x86-64: all that this program, its libraries and its interpreter make descriptors with."""

FORKS = frozenset({"clone", "clone3", "fork", "vfork"})
_FCNTL, _DUPLICATES = 72, (fcntl.F_DUPFD, fcntl.F_DUPFD_CLOEXEC)

_OPENED_AT_RUN_TIME = ("/proc/", "/dev/", "/etc/", "/sys/")
"""What is opened by the program itself, and not for an import."""

_SECCOMP, _PIDFD_GETFD = 317, 438
_PR_SET_NO_NEW_PRIVS, _SET_MODE_FILTER, _NEW_LISTENER = 38, 1, 8
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _NOTIFY = 0x7FFF0000, 0x7FC00000
_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_CONTINUE = 1
_NOTIFICATION = struct.Struct("=QIIiIQ6Q")
_RESPONSE = struct.Struct("=QqiI")
_MESSAGE = struct.Struct("=QIIQQQQi4x")  # struct msghdr

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Call:
    """One call that would have made a descriptor or a process, and was refused."""

    pid: int
    name: str
    path: str = ""


@dataclass(slots=True)
class _Order:
    """Which calls fail: the ``nth`` of ``pid`` (0: of anybody), or all from there on."""

    nth: int
    code: int
    pid: int
    but: int
    lasting: bool
    for_s: float
    after: str
    imports: bool
    path: str
    seen: int = 0
    ends_at: float = math.inf


class Shortage:
    """Owns the filters' listeners and the thread that answers; use it as a context manager.

    ``prefix`` goes in front of a command, of as many as are wanted.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="shortage-")
        path = os.path.join(self._folder.name, "s")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(8)
        self.prefix = [sys.executable, "-m", "tests.shortage", path]
        self.refused: list[Call] = []
        self._order: _Order | None = None
        self._lock = threading.Lock()
        self._stop_r, self._stop_w = os.pipe()
        self._thread = threading.Thread(target=self._serve, name="shortage", daemon=True)
        self._thread.start()

    def arm(
        self,
        nth: int,
        code: int = errno.EMFILE,
        *,
        pid: int = 0,
        but: int = 0,
        lasting: bool = False,
        for_s: float = math.inf,
        after: str = "",
        imports: bool = False,
        path: str = "",
    ) -> None:
        """The ``nth`` call from now fails with ``code``; with ``lasting`` all behind it, too.

        ``for_s``: how long, from the first that failed.
        ``pid``: of this process only; ``but``: of all but this one.
        ``after``: count from when a file with this in its path was opened.
        ``imports``: count opening a file of the program or of its libraries, too.
        ``path``: count nothing but opening a file with this in its path.
        """
        with self._lock:
            self.refused = []
            self._order = _Order(nth, code, pid, but, lasting, for_s, after, imports, path)

    def is_over(self) -> bool:
        """Whether what was to fail from one call on has failed for so long, or there was none."""
        with self._lock:
            order = self._order
            return order is None or order.seen < order.nth or time.monotonic() >= order.ends_at

    def disarm(self) -> list[Call]:
        """From now on nothing fails; the calls that did."""
        with self._lock:
            self._order = None
            return self.refused

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.disarm()
        os.close(self._stop_w)
        self._thread.join(60)
        os.close(self._stop_r)
        self._listener.close()
        self._folder.cleanup()

    # -- the thread ---------------------------------------------------------------------------

    def _serve(self) -> None:
        poll = select.poll()
        filters: set[int] = set()
        poll.register(self._stop_r, select.POLLIN)
        poll.register(self._listener, select.POLLIN)
        while True:
            for fd, mask in poll.poll():
                if fd == self._stop_r:
                    for each in filters:
                        os.close(each)
                    return
                if fd == self._listener.fileno():
                    filters.add(added := self._take_filter())
                    poll.register(added, select.POLLIN)
                elif not mask & select.POLLIN or not self._answer_one(fd):
                    poll.unregister(fd)  # the last process behind it is gone
                    filters.remove(fd)
                    os.close(fd)

    def _take_filter(self) -> int:
        """The listener of a command that begins."""
        conn, _ = self._listener.accept()
        with conn:
            # Not in a message: sending one is a call that already waits for us.
            pid, fd = map(int, conn.recv(100).split())
            listener = _borrow(pid, fd)
            conn.sendall(b".")
        return listener

    def _answer_one(self, listener: int) -> bool:
        buffer = bytearray(_NOTIFICATION.size)
        try:
            fcntl.ioctl(listener, _RECEIVE, buffer)
        except OSError as error:
            return error.errno == errno.ENOENT  # it was killed meanwhile
        self._answer(listener, buffer)
        return True

    def _answer(self, listener: int, buffer: bytearray) -> None:
        number, pid, _, call, _, _, *arguments = _NOTIFICATION.unpack(buffer)
        name, path = CALLS[call], ""
        if call in (2, 257, 437):
            path = _read_text(pid, arguments[0 if call == 2 else 1])
        response = _RESPONSE.pack(number, 0, 0, _CONTINUE)
        with self._lock:
            if (order := self._order) and self._is_meant(order, pid, name, path, arguments):
                order.seen += 1
                if order.seen == order.nth:
                    order.ends_at = time.monotonic() + order.for_s
                if order.seen == order.nth or (
                    order.lasting and order.seen > order.nth and time.monotonic() < order.ends_at
                ):
                    response = _refuse(order.code, number, pid, name, arguments)
                    self.refused.append(Call(pid, name, path))
            with contextlib.suppress(OSError):  # it was killed, or interrupted and asks again
                fcntl.ioctl(listener, _SEND, response)

    def _is_meant(
        self, order: _Order, pid: int, name: str, path: str, arguments: list[int]
    ) -> bool:
        if order.after:
            if order.after in path:
                order.after = ""
            return False
        if (order.pid and pid != order.pid) or pid == order.but:
            return False
        if order.path not in path:
            return False
        if path and not order.imports and not path.startswith(_OPENED_AT_RUN_TIME):
            return False
        match name:
            case "recvmsg":
                return _carries_descriptors(pid, arguments)
            case "sendmsg":
                return _sends_descriptors(pid, arguments)
        return True


def _refuse(code: int, number: int, pid: int, name: str, arguments: list[int]) -> bytes:
    """The response; a message is received in the process's place, its descriptors are dropped."""
    if name == "recvmsg":
        return _RESPONSE.pack(number, _receive_without(pid, arguments), 0, 0)
    if code in (errno.EMFILE, errno.ENFILE):
        if name in FORKS:
            code = errno.EAGAIN
        elif name == "sendmsg":
            code = errno.ETOOMANYREFS
    return _RESPONSE.pack(number, 0, -code, 0)


def _read_text(pid: int, where: int) -> str:
    try:
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            # Not beyond the page: the next one may not be there.
            data = os.pread(memory.fileno(), 4096 - where % 4096, where)
    except OSError:
        return ""
    return data.partition(b"\0")[0].decode(errors="replace")


def _borrow(pid: int, fd: int) -> int:
    """A duplicate of another process's descriptor."""
    pidfd = os.pidfd_open(pid)
    try:
        ours: int = _libc.syscall(_PIDFD_GETFD, pidfd, fd, 0)
    finally:
        os.close(pidfd)
    if ours < 0:
        raise OSError(ctypes.get_errno(), "pidfd_getfd")
    return ours


def _carries_descriptors(pid: int, arguments: list[int]) -> bool:
    with socket.socket(fileno=_borrow(pid, arguments[0])) as sock:
        if sock.family != socket.AF_UNIX:
            return False
        try:
            _, fds, _, _ = _receive(sock, 1, socket.MSG_PEEK)
        except OSError:
            return False
    for fd in fds:
        os.close(fd)
    return bool(fds)


def _sends_descriptors(pid: int, arguments: list[int]) -> bool:
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        header = os.pread(memory.fileno(), _MESSAGE.size, arguments[1])
    # Nothing can be read of a process that was killed meanwhile.
    return len(header) == _MESSAGE.size and bool(_MESSAGE.unpack(header)[6])


def _receive(
    sock: socket.socket, size: int, flags: int = 0
) -> tuple[bytes, list[int], int, object]:
    # socket.recv_fds ignores its flags.
    data, ancillary, got, address = sock.recvmsg(
        size, socket.CMSG_SPACE(253 * 4), flags | socket.MSG_DONTWAIT
    )
    fds: list[int] = []
    for level, kind, rights in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds += struct.unpack(f"{len(rights) // 4}i", rights)
    return data, fds, got, address


def _receive_without(pid: int, arguments: list[int]) -> int:
    """What the kernel does if there is no number for the descriptors: MSG_CTRUNC."""
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as file:
        memory = file.fileno()
        header = os.pread(memory, _MESSAGE.size, arguments[1])
        name, _, _, parts, count, control, _, _ = _MESSAGE.unpack(header)
        base, size = struct.unpack("=QQ", os.pread(memory, 16, parts))
        with socket.socket(fileno=_borrow(pid, arguments[0])) as sock:
            data, fds, _, _ = _receive(sock, size)
        for fd in fds:
            os.close(fd)
        os.pwrite(memory, data, base)
        said = _MESSAGE.pack(name, 0, 0, parts, count, control, 0, socket.MSG_CTRUNC)
        os.pwrite(memory, said, arguments[1])
    return len(data)


# -- the command's side -------------------------------------------------------------------------


def _install() -> int:
    """The listener of a filter that announces the calls, from now on and in all children."""
    steps = [(_LOAD, 0, 0, 0)]  # the number of the call
    for number in CALLS:
        if number != _FCNTL:
            steps += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _NOTIFY)]
    steps += [(_EQUAL, 0, 4, _FCNTL), (_LOAD, 0, 0, 24)]  # the lower half of its second argument
    steps += [(_EQUAL, 1, 0, _DUPLICATES[0]), (_EQUAL, 0, 1, _DUPLICATES[1])]
    steps += [(_RETURN, 0, 0, _NOTIFY), (_RETURN, 0, 0, _ALLOW)]
    program = Program(steps)
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    listener: int = _libc.syscall(_SECCOMP, _SET_MODE_FILTER, _NEW_LISTENER, ctypes.byref(program))
    if listener < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return listener


def why_no_shortage() -> str:
    """Why no call can be refused here; empty if one can. Tries it, in a child."""
    if platform.machine() != "x86_64":
        return "knows the numbers of x86-64 only"
    pid = os.fork()
    if pid == 0:
        try:
            os.close(_install())
            os._exit(0)
        except OSError:
            os._exit(1)
    if os.waitpid(pid, 0)[1]:
        return "needs seccomp's user notification (Linux 5.5), and the right to use it"
    return ""


def main() -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(sys.argv[1])
        listener = _install()
        sock.send(f"{os.getpid()} {listener}".encode())
        sock.recv(1)  # from here on calls are answered
    os.close(listener)
    os.execvp(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
