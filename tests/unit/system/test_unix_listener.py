"""Listening UNIX sockets: what is left over is replaced, what lives is not."""

from __future__ import annotations

import contextlib
import ctypes
import encodings.ascii  # noqa: F401 - another user may be unable to read it
import fcntl
import grp
import os
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.core.unix_address import UnixAddress
from supervisor.system.unix_listener import (
    NO_FILE,
    is_in_use,
    is_there,
    listen_unix,
    remove_file,
    why_not,
    why_not_removed,
)


@contextlib.contextmanager
def listening(path: Path, **options: object) -> Iterator[socket.socket]:
    sock, made = listen_unix(UnixAddress(str(path), **options))  # type: ignore[arg-type]
    with sock:
        yield sock
        remove_file(str(path), made)


def connect(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(path))
    return sock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s.sock"


def test_clients_come_and_the_file_goes(path: Path) -> None:
    """The file is a socket while somebody listens, and nothing else is left in the directory."""
    with listening(path) as sock:
        assert stat.S_ISSOCK(path.stat().st_mode)
        with connect(path):
            sock.accept()[0].close()
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_the_mode_does_not_depend_on_the_umask(path: Path, mode: int) -> None:
    """The file never has more permissions than it shall have, and the umask is left as it was."""
    before = os.umask(0o077)
    try:
        with listening(path, mode=mode):
            assert stat.S_IMODE(path.stat().st_mode) == mode
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(before)


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give files to any group")
def test_the_group(path: Path) -> None:
    """By name or by number."""
    with listening(path, group="1"):
        assert path.stat().st_gid == 1
    with listening(path, group="daemon"):
        assert path.stat().st_gid == 1


def test_what_a_dead_process_left_is_replaced(path: Path) -> None:
    """A file whose socket is gone is in nobody's way."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with listening(path) as sock, connect(path):
        sock.accept()[0].close()
    assert not path.exists()


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_what_lives_is_left_alone(path: Path, kind: socket.SocketKind) -> None:
    """A socket of any type that a process has is an error, and its program sees nothing."""
    with socket.socket(socket.AF_UNIX, kind) as living:
        living.bind(str(path))
        if kind != socket.SOCK_DGRAM:
            living.listen()
        living.setblocking(False)
        assert is_in_use(str(path))
        with pytest.raises(OSError, match=f"cannot listen on unix:{path}: Address already in use"):
            listen_unix(UnixAddress(str(path)))
        with pytest.raises(BlockingIOError):
            living.accept() if kind != socket.SOCK_DGRAM else living.recv(1)
    assert path.exists()


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_what_is_no_socket_is_left_alone(path: Path, kind: str) -> None:
    """Nothing else is removed, a link to a socket included."""
    if kind == "file":
        path.write_text("precious")
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to("elsewhere")
    with pytest.raises(OSError, match="the file exists and is not a socket"):
        listen_unix(UnixAddress(str(path)))
    assert os.path.lexists(path)
    assert why_not(UnixAddress(str(path))) == "the file exists and is not a socket"


def test_missing_directories_and_groups_are_named(path: Path) -> None:
    """The error says what is missing."""
    nowhere = path.parent / "nowhere" / "s"
    with pytest.raises(OSError, match=f"there is no directory {nowhere.parent}"):
        listen_unix(UnixAddress(str(nowhere)))
    with pytest.raises(OSError, match="there is no group no-such-group"):
        listen_unix(UnixAddress(str(path), group="no-such-group"))
    assert list(path.parent.iterdir()) == []
    assert why_not(UnixAddress(str(path))) == ""


@pytest.mark.parametrize("kind", ["directory", "link", "socket"])
def test_what_stands_in_place_of_the_lock_is_named(path: Path, kind: str) -> None:
    """The error is about the lock, not about the path of the socket, and nothing is removed."""
    lock = path.with_name("s.sock.lock")
    with socket.socket(socket.AF_UNIX) as other:
        if kind == "directory":
            lock.mkdir()
        elif kind == "link":
            lock.symlink_to("elsewhere")
        else:
            other.bind(str(lock))
        said = f"cannot listen on unix:{path}: cannot make the lock file {lock}: "
        with pytest.raises(OSError, match=said):
            listen_unix(UnixAddress(str(path)))
    assert os.path.lexists(lock)
    assert not path.exists()


def as_another_user(ask: Callable[[], str]) -> str:
    """What ``ask`` says in a child without root's rights, of the user and group 65534."""

    def change_user() -> str:
        os.setgid(65534)
        os.setuid(65534)
        return ask()

    return in_child(change_user)


def in_child(ask: Callable[[], str]) -> str:
    """What ``ask`` says in a child without other groups than its own."""
    said_r, said_w = os.pipe()
    pid = os.fork()
    if pid == 0:
        answer = ""
        try:
            os.setgroups([])
            answer = ask()
        except BaseException as error:  # noqa: BLE001 - the child would run the tests that follow
            answer = repr(error)
        finally:
            os.write(said_w, answer.encode())
            os._exit(0)
    os.close(said_w)
    os.waitpid(pid, 0)
    with open(said_r, encoding="utf-8") as said:
        return said.read()


def refusal_of(address: UnixAddress) -> str:
    """Why no socket could be made there, said by who tries it."""
    try:
        sock, made = listen_unix(address)
    except OSError as error:
        return str(error).removeprefix(f"cannot listen on {address}: ")
    sock.close()
    remove_file(address.path, made)
    return ""


def in_own_user_namespace(ask: Callable[[], str]) -> str:
    """What ``ask`` says in a user namespace that has nobody but the user and group 65533."""
    libc = ctypes.CDLL(None, use_errno=True)
    os.setgid(65533)
    os.setuid(65533)
    libc.prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: else the maps are root's
    if libc.unshare(0x10000000) != 0:  # CLONE_NEWUSER; os.unshare is there from 3.12 on
        return "no user namespace"
    Path("/proc/self/setgroups").write_text("deny")
    for kind in ("uid", "gid"):
        Path(f"/proc/self/{kind}_map").write_text("65533 65533 1")
    return ask()


@pytest.mark.skipif(os.getuid() != 0, reason="needs another user")
@pytest.mark.parametrize(
    ("mode", "said"), [(0o777, "may not give the file to the group bin"), (0o2777, "")]
)
def test_a_group_that_the_user_namespace_lacks(mode: int, said: str) -> None:
    """As with PrivateUsers=: the file has it if the folder passes a group on."""
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, 0, grp.getgrnam("bin").gr_gid)
        os.chmod(folder, mode)
        address = UnixAddress(f"{folder}/s", group="bin")
        for ask in (lambda: why_not(address), lambda: refusal_of(address)):
            found = in_child(lambda ask=ask: in_own_user_namespace(ask))  # type: ignore[misc]
            if found == "no user namespace":
                pytest.skip("no user namespace can be made here")
            assert found == said


@pytest.mark.skipif(os.getuid() != 0, reason="needs another user")
@pytest.mark.parametrize(
    ("mode", "group", "said"),
    [
        (0o777, "", ""),
        (0o777, "65534", ""),
        (0o777, "daemon", "may not give the file to the group daemon"),
        (0o2777, "daemon", "may not give the file to the group daemon"),
        (0o2777, "bin", ""),  # the folder's group, which the file inherits
    ],
)
def test_who_may_give_the_file_to_a_group(mode: int, group: str, said: str) -> None:
    """What check says before is what the start says."""
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, 0, grp.getgrnam("bin").gr_gid)
        os.chmod(folder, mode)
        address = UnixAddress(f"{folder}/s", group=group)
        assert as_another_user(lambda: why_not(address)) == said
        assert as_another_user(lambda: refusal_of(address)) == said
        assert why_not(address) == ""


@pytest.mark.skipif(os.getuid() != 0, reason="needs another user")
@pytest.mark.parametrize("mode", [0o1777, 0o777])
def test_what_another_user_left_over(mode: int) -> None:
    """In a folder with the sticky bit only that user can remove it; anybody elsewhere."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as dead:
        os.chmod(folder, mode)
        dead.bind(path := f"{folder}/s")
        os.chmod(path, 0o666)
        dead.close()
        why = as_another_user(lambda: why_not_removed(path))
        assert why.startswith("the file was left over by another user" if mode & 0o1000 else "")
        assert as_another_user(lambda: refusal_of(UnixAddress(path))) == why
        assert os.path.exists(path) == bool(mode & 0o1000)
        assert why_not_removed(path) == ""


def test_two_that_start_together_do_not_race(path: Path) -> None:
    """Who cannot have the lock at once may ask again; a lock that a dead process left is free."""
    lock = path.with_name("s.sock.lock")
    lock.touch()
    with listening(path):
        assert not lock.exists()
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError):
            listen_unix(UnixAddress(str(path)))
        assert lock.exists()
    with listening(path):
        assert not lock.exists()


def test_a_file_that_another_process_put_there_stays(path: Path) -> None:
    """Only what was made is removed."""
    sock, made = listen_unix(UnixAddress(str(path)))
    with sock:
        assert is_there(str(path), made)
        path.rename(path.with_name("away"))
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
            assert not is_there(str(path), made)
            remove_file(str(path), made)
            assert path.exists()


def test_an_abstract_name_has_no_file() -> None:
    """It is free when its last socket is closed."""
    address = UnixAddress(f"@etcd-gateway-test-{os.getpid()}")
    sock, made = listen_unix(address)
    with sock:
        assert made == NO_FILE
        with pytest.raises(OSError, match="Address already in use"):
            listen_unix(address)
        assert why_not(address) == ""
    sock, _ = listen_unix(address)
    sock.close()
