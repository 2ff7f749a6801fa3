"""Signals: which ones the gateway answers, and how the master hears them.

The master answers most signals with handlers of its loop. SIGTTIN and SIGTTOU have two senders: an
operator who wants one worker more or less, and the terminal driver, which sends SIGTTOU to the
whole process group when one of its processes writes from the background (``stty tostop``). With a
handler installed the kernel would repeat the signal for every attempt to write and the write would
never end. So a master with a controlling terminal keeps both blocked, and then the kernel lets the
write through (tty_check_change in the kernel's tty_jobctrl.c); it reads them from a signalfd(2),
which also tells who sent them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio  # the longest import of all, before which signals are held

STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
"""The first one drains the gateway, a second one ends it at once."""

JOB_CONTROL = (signal.SIGTTIN, signal.SIGTTOU)
"""One worker more and one worker less; a terminal sends them too."""

HANDLED = (*STOP, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, *JOB_CONTROL)
"""Everything that the master answers."""

IGNORED_BY_WORKERS = (*HANDLED, signal.SIGPIPE)
"""The master owns the workers; a terminal or ``pkill`` reaches the whole process group."""

_SIGINFO_BYTES = 128
_SIGINFO = struct.Struct("=Iii")
"""The first fields of ``struct signalfd_siginfo``: signal number, errno, code (signalfd(2))."""


def hold_all() -> None:
    """Let every signal wait, for the next image or until :meth:`SignalWatch.resume`."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


class SignalWatch:
    """Calls ``on_signal(number)`` on the loop for every signal of :data:`HANDLED`.

    Owns the signalfd until :meth:`close`. ``deaf`` says why SIGTTIN and SIGTTOU cannot be heard;
    they stay blocked then and do no harm.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, on_signal: Callable[[signal.Signals], None]
    ) -> None:
        self._loop = loop
        self._on_signal = on_signal
        self._fd = -1
        self._blocked: tuple[signal.Signals, ...] = ()
        self._waiting: tuple[signal.Signals, ...] = ()
        self.deaf = ""

    def start(self, waiting: tuple[signal.Signals, ...] = ()) -> None:
        """Install the handlers and let the signals in that waited for them.

        Those in ``waiting`` wait on, until :meth:`let_in`.
        """
        self._waiting = waiting
        if has_controlling_terminal():
            self._blocked = JOB_CONTROL
            self._open_signalfd()
        for number in HANDLED:
            if number not in self._blocked:
                self._loop.add_signal_handler(number, self._on_signal, number)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        self.resume()

    def let_in(self) -> None:
        """Hear all signals."""
        self._waiting = ()
        self.resume()

    def resume(self) -> None:
        """Undo ``launch.hold_signals`` and :func:`hold_all`."""
        signal.pthread_sigmask(signal.SIG_SETMASK, self._blocked + self._waiting)

    def close(self) -> None:
        """Hear nothing any more.

        The loop gives the signals their default actions back when it is closed. One that comes
        after that must not turn the exit code into a death by signal, so they are blocked first.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _open_signalfd(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, self._blocked)
        try:
            self._fd = _signalfd(self._blocked)
        except (OSError, ImportError, MemoryError) as error:
            self.deaf = str(error)
        else:
            self._loop.add_reader(self._fd, self._read)

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            record = os.read(self._fd, _SIGINFO_BYTES)
            number, _, code = _SIGINFO.unpack_from(record)
            if code <= 0:  # a process sent it (SI_USER); the kernel's own codes are positive
                self._on_signal(signal.Signals(number))


def has_controlling_terminal() -> bool:
    """Whether a terminal may send us signals: ``tty_nr`` of proc_pid_stat(5) is not 0."""
    try:
        with open("/proc/self/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return False
    return fields[4] != "0"


def _signalfd(numbers: tuple[signal.Signals, ...]) -> int:
    """A non-blocking signalfd that closes on exec; the ``signal`` module has none until 3.13."""
    # Imported only where there is a terminal: in 3.11 the import needs executable memory where
    # libffi is old, and a hardened unit (MemoryDenyWriteExecute=) forbids that.
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    mask = ctypes.create_string_buffer(_SIGINFO_BYTES)  # sigset_t: a bit for each of 1024 signals
    libc.sigemptyset(mask)
    for number in numbers:
        libc.sigaddset(mask, int(number))
    fd: int = libc.signalfd(-1, mask, os.O_CLOEXEC | os.O_NONBLOCK)
    if fd < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"signalfd: {os.strerror(code)}")
    return fd
