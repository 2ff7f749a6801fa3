"""Listening UNIX sockets: made so that nobody connects too early, and no living one is replaced.

A file is left behind when its process is killed, and bind(2) refuses to use it again. Whether it is
left over is found out without a connection, so that no living program sees anything. Two gateways
that start at the same moment would both find the same file left over; the second would take away
the file that the first has just made. So whoever looks and binds holds a lock meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import os
import re
import socket
import stat
from collections.abc import Iterator

from gateway.core.unix_address import UnixAddress, socket_name
from gateway.ingress.listener import BACKLOG
from gateway.unix import refuse_descriptors
from supervisor.system.connections import knock_unix

FileId = tuple[int, int]
"""Device and inode of a file."""

NO_FILE: FileId = (0, 0)
"""Of a name in the abstract namespace."""


_CAP_CHOWN, _CAP_FOWNER = 0, 3
"""capabilities(7): to give a file to any group; to remove it where the sticky bit forbids it."""


_UNMAPPED = 65534
"""What stat(2) shows of every group that our user namespace lacks (kernel.overflowgid)."""


class UnknownGroupError(OSError):
    """There is no group of this name or number."""


def listen_unix(address: UnixAddress) -> tuple[socket.socket, FileId]:
    """Bind and listen; the socket, and the file that was made for it. An OSError says why not.

    The file has its mode and its group before a client can connect. BlockingIOError: another
    process is just about to bind there.
    """
    try:
        return bind_unix(address)
    except BlockingIOError:
        raise
    except OSError as error:
        raise OSError(f"cannot listen on {address}: {why_failed(address, error)}") from error


def bind_unix(address: UnixAddress) -> tuple[socket.socket, FileId]:
    """The same; the OSError does not name the address. See :func:`why_failed`."""
    with contextlib.nullcontext() if address.abstract else _bind_lock(address.path):
        return _listen(address)


def why_failed(address: UnixAddress, error: OSError) -> str:
    """Why it could not be bound: what is wrong with its path, else what the kernel said."""
    return why_not(address) or error.strerror or str(error)


def _listen(address: UnixAddress) -> tuple[socket.socket, FileId]:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    with contextlib.ExitStack() as undo:
        undo.callback(sock.close)
        gid = find_group(address.group)
        made = NO_FILE
        if not address.abstract:
            _remove_stale(address.path)
        _bind(sock, address)
        if not address.abstract:
            made = file_id(address.path)
            undo.callback(remove_file, address.path, made)
            give_to_group(address, gid)
        refuse_descriptors(sock)
        sock.listen(BACKLOG)
        undo.pop_all()
    return sock, made


def _bind(sock: socket.socket, address: UnixAddress) -> None:
    # bind() makes the file, with all permissions that the umask leaves: a chmod would come late.
    umask = os.umask(0o777 & ~address.mode)
    try:
        sock.bind(socket_name(str(address)))
    finally:
        os.umask(umask)


def _remove_stale(path: str) -> None:
    """Remove a socket that no process has; leave alone what is in use or is no socket."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise OSError(errno.EEXIST, "the file exists and is not a socket")
    except FileNotFoundError:
        return
    if is_in_use(path):
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    if why := why_not_removed(path):
        raise PermissionError(errno.EPERM, why)
    os.unlink(path)


def why_not_removed(path: str) -> str:
    """Why unlink(2) would be refused in a directory that we may write to; "" if it would not be, or
    if there is no file."""
    try:
        found, directory = os.lstat(path), os.stat(os.path.dirname(path))
    except OSError:
        return ""
    ours = os.geteuid() in (found.st_uid, directory.st_uid)
    if ours or not directory.st_mode & stat.S_ISVTX or _may(_CAP_FOWNER):
        return ""
    return "the file was left over by another user, who alone may remove it from this directory"


def is_in_use(path: str) -> bool:
    """Whether a process has a socket there. OSError: it cannot be found out."""
    try:
        knock_unix(path)
    except (ConnectionRefusedError, FileNotFoundError):
        return False
    except OSError as error:
        if error.errno == errno.EPROTOTYPE:  # of another type
            return True
        raise
    return True


def why_not(address: UnixAddress) -> str:
    """Why no socket could be made there, whoever listens there now; "" if one could."""
    try:
        gid = find_group(address.group)
    except UnknownGroupError as error:
        return str(error.strerror)
    if address.abstract:
        return ""
    directory = os.path.dirname(address.path)
    try:
        if not stat.S_ISSOCK(os.lstat(address.path).st_mode):
            return "the file exists and is not a socket"
    except FileNotFoundError:
        pass
    except OSError as error:
        return os.strerror(error.errno or 0)
    if not os.path.isdir(directory):
        return f"there is no directory {directory}"
    if not os.access(directory, os.W_OK | os.X_OK):
        return f"the directory {directory} is not writable"
    return "" if _may_give(directory, gid) else _forbidden_group(address)


def why_not_group(address: UnixAddress) -> str:
    """Why a file of ours that is there may not have its group; "" if it may."""
    try:
        gid = find_group(address.group)
        kept = gid is None or _has_group(os.lstat(address.path), gid)
    except UnknownGroupError as error:
        return str(error.strerror)
    except OSError as error:
        return os.strerror(error.errno or 0)
    return (
        "" if kept or _may_give(os.path.dirname(address.path), gid) else _forbidden_group(address)
    )


def _may_give(directory: str, gid: int | None) -> bool:
    """Whether a file of ours in the directory may have the group: chown(2), inode(7)."""
    if gid is None or gid == os.getegid() or gid in os.getgroups():
        return True
    found = os.stat(directory)
    if found.st_mode & stat.S_ISGID and _has_group(found, gid):  # the file inherits it
        return True
    return _may(_CAP_CHOWN) and _is_mapped(gid)


def _has_group(found: os.stat_result, gid: int) -> bool:
    """Whether a file has the group, as far as it can be told where our user namespace lacks it.

    So it is with PrivateUsers= for every group but our own. Nobody can give a file to such a group
    then, so it is the operator who gave it to one: by the setgid bit of the directory.
    """
    return found.st_gid == gid or (found.st_gid == _UNMAPPED and not _is_mapped(gid))


def _is_mapped(gid: int) -> bool:
    """Whether our user namespace has the group (user_namespaces(7)); True if nobody says so."""
    try:
        with open("/proc/self/gid_map", encoding="ascii") as lines:
            ranges = [tuple(map(int, line.split())) for line in lines]
    except OSError:
        return True
    return any(first <= gid < first + count for first, _, count in ranges)


def _forbidden_group(address: UnixAddress) -> str:
    return f"may not give the file to the group {address.group}"


def _may(capability: int) -> bool:
    """Whether this process has the capability; True where that cannot be found out."""
    try:
        with open("/proc/self/status", encoding="utf-8", errors="replace") as file:
            found = re.search(r"^CapEff:\s*([0-9a-f]+)$", file.read(), re.MULTILINE)
    except OSError:
        return True
    return found is None or bool(int(found[1], 16) >> capability & 1)


def find_group(group: str) -> int | None:
    """The number of a group; None for none."""
    if not group:
        return None
    if group.isascii() and group.isdecimal() and int(group) < 2**32 - 1:
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise UnknownGroupError(errno.EINVAL, f"there is no group {group}") from None


def give_to_group(address: UnixAddress, gid: int | None) -> None:
    """Change the group of the file. Nothing is asked of the kernel if that is its group already, as
    in a directory with the setgid bit: hardened units forbid chown(2) altogether."""
    if gid is None or _has_group(os.lstat(address.path), gid):
        return
    try:
        os.chown(address.path, -1, gid, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EACCES, errno.EINVAL):  # EINVAL: not mapped
            raise
        raise PermissionError(errno.EPERM, _forbidden_group(address)) from error


def file_id(path: str) -> FileId:
    """What tells a file from another one that takes its place."""
    found = os.lstat(path)
    return found.st_dev, found.st_ino


def is_there(path: str, made: FileId) -> bool:
    """Whether the file at ``path`` is still that one."""
    try:
        return file_id(path) == made
    except OSError:
        return False


CANNOT_REMOVE = "cannot remove the file of a socket"
"""So the log begins where a file has to stay behind."""


def remove_file(path: str, made: FileId) -> str:
    """Remove the file; one that another process has put in its place stays.

    Why it cannot be removed, "" if nothing is in the way.
    """
    if is_there(path, made):
        try:
            os.unlink(path)
        except FileNotFoundError:
            return ""
        except OSError as error:
            return error.strerror or str(error)
    return ""


@contextlib.contextmanager
def _bind_lock(path: str) -> Iterator[None]:
    """Hold the lock of a path: a file beside it, which is there while it is held.

    BlockingIOError: another process holds it.
    """
    lock = f"{path}.lock"
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    while True:
        try:
            fd = os.open(lock, flags, 0o600)
        except OSError as error:
            why = f"cannot make the lock file {lock}: {error.strerror}"
            raise OSError(error.errno, why) from error
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, fd)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = os.fstat(fd)
            if is_there(lock, (found.st_dev, found.st_ino)):
                undo.callback(os.unlink, lock)
                yield
                return
        # Whoever held it removed the file after we had opened it: lock the one that counts now.
