"""Pipes for splice: bulk bytes go from socket to socket without entering user space."""

from __future__ import annotations

import errno
import fcntl
import os
from os import splice

from gateway.core.descriptor_budget import DescriptorBudget

PIPE_BYTES = 1 << 20
"""Capacity asked for: the most an unprivileged process may have (fs.pipe-max-size)."""

USEFUL_BYTES = 1 << 16
"""A smaller pipe moves less per call than a copy does. The kernel gives out such pipes when a user
holds more than fs.pipe-user-pages-soft."""

SPARE = 16
"""Empty pipes kept for the next bulk flow."""

_FLAGS = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE


class Pipe:
    """Both ends, and how many bytes are inside. Owned by one direction of one session."""

    __slots__ = ("fill", "r", "w")

    def __init__(self, r: int, w: int) -> None:
        self.r = r
        self.w = w
        self.fill = 0

    def take_from(self, fd: int) -> int:
        """Move bytes from the socket ``fd`` into the pipe; how many.

        0 says nothing about the socket. An empty one, one whose stream has ended and one that
        stands at an urgent byte look alike to splice; only ``read`` tells them apart.
        """
        try:
            self.fill = splice(fd, self.w, PIPE_BYTES, None, None, _FLAGS)
        except BlockingIOError:
            self.fill = 0
        return self.fill

    def pass_to(self, fd: int) -> None:
        """Move bytes on to the socket ``fd`` until it takes no more; ``fill`` is what is left."""
        while self.fill:
            try:
                self.fill -= splice(self.r, fd, self.fill, None, None, _FLAGS)
            except BlockingIOError:
                return


class Pipes:
    """The worker's spare pipes. Only empty ones come back; others are closed with their bytes."""

    def __init__(self, budget: DescriptorBudget) -> None:
        self._budget = budget
        self._spare: list[Pipe] = []
        self._usable: bool | None = None
        """Whether the host lets us splice; None until somebody wants a pipe."""

    def take(self) -> Pipe | None:
        """A pipe, or None: then copy (descriptors or memory are short, splice is refused)."""
        if self._spare:
            return self._spare.pop()
        if self._usable is None:
            self._usable = _may_splice()
        if not self._usable or not self._budget.take_pipe():
            return None
        try:
            r, w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            self._budget.give_pipe_back()
            return None
        pipe = Pipe(r, w)
        if _grow(w) < USEFUL_BYTES:
            self._close(pipe)
            return None
        return pipe

    def give_back(self, pipe: Pipe) -> None:
        if pipe.fill or len(self._spare) >= SPARE or not self._usable:
            self._close(pipe)
        else:
            self._spare.append(pipe)

    def close_spare(self) -> None:
        """Clients need the descriptors more."""
        while self._spare:
            self._close(self._spare.pop())

    def close(self) -> None:
        self._usable = False
        self.close_spare()

    def _close(self, pipe: Pipe) -> None:
        os.close(pipe.r)
        os.close(pipe.w)
        self._budget.give_pipe_back()


def _may_splice() -> bool:
    """False where a seccomp profile, or the kernel, refuses the call whatever is asked of it."""
    try:
        splice(-1, -1, 1, None, None, _FLAGS)
    except OSError as error:
        return error.errno == errno.EBADF
    return True


def _grow(w: int) -> int:
    """The capacity reached, in bytes."""
    try:
        return fcntl.fcntl(w, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    except OSError:
        return fcntl.fcntl(w, fcntl.F_GETPIPE_SZ)
