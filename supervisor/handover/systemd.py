"""What the master says to systemd, and the descriptors that systemd keeps for it (sd_notify(3)).

Without NOTIFY_SOCKET every call does nothing. Never blocks: what the service manager cannot take
at once waits in order.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections import deque
from collections.abc import Mapping, MutableMapping

from gateway.core.outcome import EXHAUSTED
from gateway.descriptors import NO_ROOM_TO_SEND, close_all, send

STATUS_INTERVAL_S = 1.0
"""``STATUS=`` at most this often."""
KEEP_RETRY_S = 0.2
"""Until descriptors are kept for which there was no duplicate to send."""
FIRST_FD = 3
"""SD_LISTEN_FDS_START."""


def take_stored(environ: MutableMapping[str, str]) -> list[tuple[str, int]]:
    """The descriptors that were kept for us, by name, if they are meant for this process.

    The caller owns them; they close on exec from now on. The variables are removed.
    """
    named = find_stored(environ)
    for variable in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        environ.pop(variable, None)
    for _, fd in named:
        os.set_inheritable(fd, False)
    return named


def find_stored(environ: Mapping[str, str]) -> list[tuple[str, int]]:
    """The same, which stay for :func:`take_stored`."""
    pid, count = environ.get("LISTEN_PID", ""), environ.get("LISTEN_FDS", "")
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    unnamed = [""] * (int(count) - len(names))
    counted = zip([*names, *unnamed], range(FIRST_FD, FIRST_FD + int(count)), strict=False)
    return [(name, fd) for name, fd in counted if _came_with_exec(fd)]


def _came_with_exec(fd: int) -> bool:
    """Whether we were given it. If what started us has closed it, and left the variables, the
    number is nobody's, or the event loop's: Python makes descriptors that close on exec."""
    try:
        return os.get_inheritable(fd)
    except OSError:
        return False


def watchdog_interval_s(environ: Mapping[str, str]) -> float | None:
    """How often to send WATCHDOG=1: half of what the unit asks for; None if not us."""
    usec, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not usec.isdecimal() or int(usec) == 0 or pid not in ("", str(os.getpid())):
        return None
    return int(usec) / 1e6 / 2.0


def least_watchdog_s(worker_timeout_s: float) -> float:
    """The shortest watchdog that leaves the master the time to replace the only worker.

    One that hangs is killed after ``worker_timeout_s``, and may have begun to hang right before a
    turn, which is half of the interval. Ten seconds are for its successor, on a busy host.
    """
    return 2.0 * (worker_timeout_s + 10.0)


def _connect(name: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        sock.connect(name)
    except OSError:
        sock.close()
        raise
    return sock


class Notify:
    """The connection to the service manager; it is the worker pool's descriptor store too."""

    def __init__(self, address: str | None) -> None:
        """``address``: of NOTIFY_SOCKET, ``@`` begins an abstract one."""
        self._stopping = False
        self._sock: socket.socket | None = None
        self._waiting: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self._status = ""
        self._said_at = float("-inf")
        self._late: asyncio.TimerHandle | None = None
        self._unkept: dict[str, int] = {}
        self._retry: asyncio.TimerHandle | None = None
        self._again: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.failure = ""
        """Why the service manager cannot be told anything although it gave an address."""
        if address and address[0] in "/@":
            try:
                self._sock = _connect("\0" + address[1:] if address[0] == "@" else address)
            except OSError as error:
                if error.errno in EXHAUSTED:
                    raise
                self.failure = error.strerror or str(error)

    @property
    def enabled(self) -> bool:
        return self._sock is not None

    def ready(self, status: str) -> None:
        """Started, or a reload is over (for a failed one ``status`` says so).

        Behind STOPPING=1 only the status is said: a service that is ready again is not stopping.
        """
        if self._stopping:
            self.status(status)
            return
        if self.enabled:
            self._status = status
            self._note_said()
        self._send(f"READY=1\nSTATUS={_line(status)}")

    def reloading(self) -> None:
        """A reload begins; both lines have to be in one datagram. Not said behind STOPPING=1."""
        if self._stopping:
            return
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        self._stopping = True
        self._send("STOPPING=1")

    def extend(self, by_s: float) -> None:
        """The start or stop goes on; ask for ``by_s`` more seconds from now."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(by_s * 1e6)}")

    def watchdog(self) -> None:
        self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """Send a new status, at most once a second; the newest one is always sent in the end."""
        if not self.enabled or text == self._status:
            return
        self._status = text
        if self._late is None:
            loop = asyncio.get_running_loop()
            self._late = loop.call_at(self._said_at + STATUS_INTERVAL_S, self._say_status)

    def _note_said(self) -> None:
        """The newest status is on its way: the next one is due a second later."""
        if self._late is not None:
            self._late.cancel()
            self._late = None
        self._said_at = time.monotonic()  # the clock of the loop, of which there may be none yet

    def _say_status(self) -> None:
        self._note_said()
        self._send(f"STATUS={_line(self._status)}")

    def keep(self, name: str, fd: int) -> None:
        """Have a duplicate kept under ``name``; a second one under the same name replaces it."""
        if self.enabled:
            self._unkept[name] = fd
            self._keep_all()

    def _keep_all(self) -> None:
        """Send what is to be kept; what there is no descriptor for is tried again."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        for name, fd in list(self._unkept.items()):
            try:
                duplicate = os.dup(fd)
            except OSError:
                loop = asyncio.get_running_loop()
                self._retry = loop.call_later(KEEP_RETRY_S, self._keep_all)
                return
            del self._unkept[name]
            self._send(f"FDSTOREREMOVE=1\nFDNAME={name}")
            self._queue(f"FDSTORE=1\nFDNAME={name}", (duplicate,))

    def remove(self, name: str) -> None:
        """Have it forgotten; to be called no later than its descriptor is closed."""
        self._unkept.pop(name, None)
        self._send(f"FDSTOREREMOVE=1\nFDNAME={name}")

    async def barrier(self, deadline_s: float = 5.0) -> bool:
        """Wait until the service manager has read everything; False after ``deadline_s``."""
        if not self.enabled:
            return True
        barrier_r, barrier_w = os.pipe()
        loop, reached = asyncio.get_running_loop(), asyncio.Event()
        try:
            try:
                loop.add_reader(barrier_r, reached.set)
                self._send("BARRIER=1", (barrier_w,))
            finally:  # the other duplicate is closed by systemd: then we read the end
                os.close(barrier_w)
            await asyncio.wait_for(reached.wait(), deadline_s)
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(barrier_r)
            os.close(barrier_r)
        return True

    def close(self) -> None:
        for timer in (self._late, self._retry, self._again):
            if timer is not None:
                timer.cancel()
        if self._sock is None:
            return
        self._stop_watching()
        for _, fds in self._waiting:
            close_all(fds)
        self._waiting.clear()
        self._sock.close()
        self._sock = None

    def _send(self, text: str, fds: tuple[int, ...] = ()) -> None:
        if self._sock is not None:
            self._queue(text, tuple(os.dup(fd) for fd in fds))

    def _queue(self, text: str, fds: tuple[int, ...]) -> None:
        """Send after everything that was queued before; owns the descriptors."""
        self._waiting.append((text.encode(), fds))
        if len(self._waiting) == 1:
            self._flush()

    def _flush(self) -> None:
        while self._waiting and self._sock is not None:
            data, fds = self._waiting[0]
            try:
                send(self._sock, data, fds)
            except BlockingIOError:
                self._flush_when_read(self._sock)
                return
            except OSError as error:
                if error.errno in NO_ROOM_TO_SEND:
                    self._flush_later()
                    return
                # else systemd is being replaced, or gone: nobody to tell
            close_all(fds)
            self._waiting.popleft()
        self._stop_watching()

    def _flush_when_read(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            loop.add_writer(sock, self._flush)
        except OSError:  # there is no room to watch it
            self._flush_later()
        else:
            self._loop = loop

    def _flush_later(self) -> None:
        """The kernel has no memory for a message just now, or too many descriptors in flight."""
        self._stop_watching()
        if self._again is None:
            loop = asyncio.get_running_loop()
            self._again = loop.call_later(KEEP_RETRY_S, self._flush_again)

    def _flush_again(self) -> None:
        self._again = None
        self._flush()

    def _stop_watching(self) -> None:
        """Wait no more until the service manager has read something."""
        if self._loop is not None and self._sock is not None:
            self._loop.remove_writer(self._sock)
            self._loop = None


def _line(text: str) -> str:
    return text.replace("\n", " ")
