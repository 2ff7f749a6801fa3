"""The listening UNIX sockets of a gateway, from the first master to the next."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from pathlib import Path

import pytest

from gateway.core.unix_address import UnixAddress
from supervisor.workers.inherited import InheritedDescriptors
from supervisor.workers.shared_listeners import SharedListeners


class Store:
    """Remembers what is kept."""

    def __init__(self) -> None:
        self.kept: dict[str, int] = {}

    def keep(self, name: str, fd: int) -> None:
        self.kept[name] = fd

    def remove(self, name: str) -> None:
        self.kept.pop(name, None)


def duplicates(shared: SharedListeners) -> list[tuple[str, int]]:
    """As the next master gets them."""
    return [(name, os.dup(fd)) for name, fd in shared.named_descriptors().items()]


def test_sockets_of_one_socket_unit_have_one_name(tmp_path: Path) -> None:
    """All of them are taken; what is no listening UNIX socket is left for others."""
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as other:
        for number, sock in enumerate((one, other)):
            sock.bind(str(tmp_path / str(number)))
            sock.listen()
        named = [("gw.socket", os.dup(one.fileno())), ("gw.socket", os.dup(other.fileno()))]
        memory = os.memfd_create("of another release")
        inherited = InheritedDescriptors.from_names([*named, ("news", memory)])
        listen = [UnixAddress(str(tmp_path / str(number))) for number in range(2)]
        shared = SharedListeners()
        shared.take_over(listen, inherited.shared_sockets())
        assert len(shared.lent) == 2
        assert shared.socks == ()
        assert inherited.unknown == {"news": memory}
        shared.remove_files()
        shared.shut()
        os.close(memory)
        with socket.socket(socket.AF_UNIX) as client:  # they are not ours to shut down
            client.connect(str(tmp_path / "1"))
            other.accept()[0].close()


def test_a_former_address_is_served_until_we_are_ready(tmp_path: Path) -> None:
    """Its file stays while the former master's workers accept there, and goes afterwards."""
    old, new = UnixAddress(str(tmp_path / "old")), UnixAddress(str(tmp_path / "new"))
    store = Store()
    first, second = SharedListeners(store), SharedListeners(store)
    asyncio.run(first.open([old]))
    inherited = InheritedDescriptors.from_names(duplicates(first))
    second.take_over([new], inherited.shared_sockets())
    asyncio.run(second.open([new]))
    assert os.path.exists(old.path)
    assert len(store.kept) == len(second.named_descriptors()) == 2
    second.drop_former()
    assert not os.path.exists(old.path)
    assert list(store.kept) == list(second.named_descriptors())
    first.close()
    second.shut()
    assert list(tmp_path.iterdir()) == []
    assert store.kept == {}


def test_a_file_that_cannot_be_removed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, whether it is in use to the end or of an address of before.

    Its folder may have been given to somebody else. One that is gone already is no trouble.
    """

    def refuse(path: str) -> None:
        raise OSError(code, os.strerror(code), path)

    old, new = UnixAddress(str(tmp_path / "old")), UnixAddress(str(tmp_path / "new"))
    told: list[tuple[str, str]] = []
    first = SharedListeners()
    second = SharedListeners(on_left=lambda path, why: told.append((path, why)))
    asyncio.run(first.open([old]))
    second.take_over([new], InheritedDescriptors.from_names(duplicates(first)).shared_sockets())
    asyncio.run(second.open([new]))
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refuse)
        code = errno.ENOENT
        second.remove_files()
        assert told == []
        code = errno.EACCES
        second.drop_former()
        second.remove_files()
        second.remove_files()
        assert told == [(old.path, "Permission denied"), (new.path, "Permission denied")]
    second.shut()
    first.close()


def test_abstract_names_come_back_under_names_of_their_own() -> None:
    """No two descriptors have one name, whatever the order of the addresses."""
    a, b = (UnixAddress(f"@etcd-gateway-{os.getpid()}-{letter}") for letter in "ab")
    first, second = SharedListeners(), SharedListeners()
    asyncio.run(first.open([a]))
    inherited = InheritedDescriptors.from_names(duplicates(first))
    second.take_over([b, a], inherited.shared_sockets())
    asyncio.run(second.open([b, a]))
    assert len(second.named_descriptors()) == 2
    first.close()
    second.close()


def test_a_lock_that_is_never_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says which file another process holds."""
    import fcntl

    from supervisor.workers import shared_listeners

    monkeypatch.setattr(shared_listeners, "LOCK_S", 0.1)
    address = UnixAddress(str(tmp_path / "s"))
    shared = SharedListeners()
    with open(f"{address.path}.lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(OSError, match=f"another process has held {address.path}.lock"):
            asyncio.run(shared.open([address]))
