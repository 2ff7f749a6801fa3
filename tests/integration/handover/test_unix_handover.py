"""UNIX sockets from one master to the next, under a service manager that keeps descriptors."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.backends import Backend, echo
from tests.clients import talk
from tests.gateway import COMMAND, READY, Gateway
from tests.stress.manager import Manager
from tests.support import wait_until
from tests.unix_clients import Load, connect

Start = Callable[..., Manager]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start gateways on these listen addresses; they are ended afterwards."""
    with Backend(echo) as backend, contextlib.ExitStack() as stack:

        def begin(*listen: str, stored: list[tuple[str, int]] | None = None) -> Manager:
            (tmp_path / "gw.toml").write_text(f"listen-addr = {json.dumps(listen)}\n")
            argv = [*COMMAND, "start", f"--endpoints={backend.address}", "--handover"]
            argv += [f"--config-file={tmp_path}/gw.toml", "--workers=2", "--log-format=json"]
            manager = Manager(tmp_path, argv, tmp_path / "gateway.log")
            stack.callback(manager.stop)
            manager.stored = list(stored or [])
            manager.start()
            return manager

        yield begin


def lines(folder: Path, msg: str) -> list[dict[str, Any]]:
    whole = (folder / "gateway.log").read_text().rpartition("\n")[0]
    return [line for text in whole.splitlines() if (line := json.loads(text))["msg"] == msg]


def served_more(load: Load, than: int) -> bool:
    return load.served > than


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_lost_by_a_restart_or_a_crash(
    tmp_path: Path, start: Start, number: signal.Signals
) -> None:
    """Also where there is no other address: no slot has a socket of its own then."""
    path = str(tmp_path / "s")
    manager = start(f"unix:{path}")
    made = os.stat(path).st_ino
    with Load(path) as load, connect(path) as session:
        for _ in range(3):
            manager.end_main(number)
            manager.start()
            manager.until(partial(served_more, load, load.served + 20))
            talk(session)
    assert load.lost == []
    assert os.stat(path).st_ino == made
    assert [line for line in lines(tmp_path, "worker exited") if "SIG" in line["how"]] == []


def test_another_path_after_a_restart(tmp_path: Path, start: Start) -> None:
    """The old file is gone, the socket that stays is the same; options are applied."""
    old, new, kept = (str(tmp_path / name) for name in ("old", "new", "kept"))
    manager = start(f"unix:{old}", f"unix:{kept}")
    inode = os.stat(kept).st_ino
    manager.end_main(signal.SIGTERM)
    (tmp_path / "gw.toml").write_text(f'listen-addr = "unix:{new},unix:{kept},mode=0600"\n')
    manager.start()
    assert not os.path.exists(old)
    assert os.stat(kept).st_ino == inode
    assert stat.S_IMODE(os.stat(kept).st_mode) == 0o600
    for path in (new, kept):
        with connect(path) as session:
            talk(session)
    names = [name for name, _ in manager.stored if name.startswith("unix.")]
    assert len(names) == len(set(names)) == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_file_that_was_removed_meanwhile(
    tmp_path: Path, start: Start, number: signal.Signals
) -> None:
    """The log says so while the gateway runs; the next start makes the socket anew, and says so.

    After a crash, too, clients are accepted there: workers that do not have it are replaced.
    """
    path = str(tmp_path / "s")
    manager = start(f"unix:{path}")
    os.unlink(path)
    msg = "no client finds the socket of a listen address any more"
    manager.until(lambda: lines(tmp_path, msg))
    assert lines(tmp_path, msg)[0]["listen"] == f"unix:{path}"
    manager.end_main(number)
    manager.start()
    with connect(path) as session:
        talk(session)
    msg = "clients find the socket of a listen address again"
    manager.until(lambda: lines(tmp_path, msg))
    assert lines(tmp_path, msg)[0]["listen"] == f"unix:{path}"


def test_a_socket_that_the_service_manager_made(tmp_path: Path, start: Start) -> None:
    """That of a socket unit is used, by an upgrade too, and its file is left alone at the end."""
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path)
        made.listen()
        with connect(path, 20) as early:  # a client that was there before the gateway
            manager = start(f"unix:{path}", stored=[("gateway.socket", os.dup(made.fileno()))])
            talk(early)
        assert not any(name.startswith("unix.") for name, _ in manager.stored)
        assert manager.main is not None
        manager.main.send_signal(signal.SIGUSR2)
        manager.until(lambda: len(lines(tmp_path, READY)) == 2)
        with connect(path) as session:
            talk(session)
        manager.end_main(signal.SIGINT)
        with connect(path, 20) as late:  # waits for the next start, as systemd does it
            manager.stored = [("gateway.socket", os.dup(made.fileno()))]
            manager.start()
            talk(late)
        manager.end_main(signal.SIGINT)
    assert os.path.exists(path)


def test_two_that_start_at_the_same_moment(tmp_path: Path) -> None:
    """Of two gateways that find the same left over file one gets the address, the other ends."""
    path = str(tmp_path / "s")
    with Backend(echo) as backend:
        for _ in range(5):
            with socket.socket(socket.AF_UNIX) as gone, contextlib.suppress(FileNotFoundError):
                os.unlink(path)
                gone.bind(path)
            both = [Gateway(listen=f"unix:{path}", endpoints=[backend.address]) for _ in range(2)]
            with both[0], both[1]:
                wait_until(lambda: sum(bool(gw.lines(READY)) for gw in both) == 1, 30)  # noqa: B023
                wait_until(lambda: sum(gw.process.poll() is not None for gw in both) == 1, 30)  # noqa: B023
                [loser] = [gw for gw in both if gw.process.poll() is not None]
                assert loser.process.returncode == 1
                assert "Address already in use" in loser.text().splitlines()[-1]
                with connect(path) as session:
                    talk(session)
                assert not os.path.exists(f"{path}.lock")


def test_an_upgrade_to_an_address_that_cannot_be(tmp_path: Path) -> None:
    """It is tried before, and the old image serves on."""
    path, config = str(tmp_path / "s"), tmp_path / "gw.toml"
    config.write_text(f'listen-addr = "unix:{path}"\n')
    with Backend(echo) as backend:
        with Gateway(f"--config-file={config}", listen="", endpoints=[backend.address]) as gateway:
            gateway.wait_ready()
            config.write_text('listen-addr = "unix:/no/such/directory/s"\n')
            gateway.signal(signal.SIGUSR2)
            failed = gateway.wait_line("upgrade failed, the old image goes on", 40)
            assert "there is no directory /no/such/directory" in failed["error"]
            with connect(path) as session:
                talk(session)
            config.write_text(f'listen-addr = "unix:{path}.new"\n')
            gateway.signal(signal.SIGUSR2)
            gateway.wait_line(READY, 40, count=2)
            with connect(f"{path}.new") as session:
                talk(session)
            assert not os.path.exists(path)
        assert not os.path.exists(f"{path}.new")


@pytest.mark.parametrize("what", ["its directory", "its place", "its group"])
def test_an_upgrade_that_cannot_have_its_socket_any_more(tmp_path: Path, what: str) -> None:
    """The file was removed meanwhile, or is to have a group: what cannot be is found out before."""
    folder, config = tmp_path / "d", tmp_path / "gw.toml"
    folder.mkdir()
    config.write_text(f'listen-addr = "unix:{folder}/s"\n')
    with contextlib.ExitStack() as stack:
        backend = stack.enter_context(Backend(echo))
        gateway = stack.enter_context(
            Gateway(f"--config-file={config}", listen="", endpoints=[backend.address])
        )
        gateway.wait_ready()
        session = stack.enter_context(connect(f"{folder}/s"))
        talk(session)
        said = "there is no group nobody-has-this"
        if what == "its group":
            config.write_text(f'listen-addr = "unix:{folder}/s,group=nobody-has-this"\n')
        else:
            os.unlink(folder / "s")
        if what == "its directory":
            folder.rmdir()
            said = f"there is no directory {folder}"
        elif what == "its place":
            other = stack.enter_context(socket.socket(socket.AF_UNIX))
            other.bind(f"{folder}/s")
            other.listen()
            said = "Address already in use"
        gateway.signal(signal.SIGUSR2)
        failed = gateway.wait_line("upgrade failed, the old image goes on", 40)
        assert said in failed["error"]
        talk(session)


def test_an_upgrade_makes_a_socket_anew_whose_file_was_removed(tmp_path: Path) -> None:
    """Clients find it again, and sessions of before go on."""
    path = str(tmp_path / "s")
    with Backend(echo) as backend, contextlib.ExitStack() as stack:
        gateway = stack.enter_context(Gateway(listen=f"unix:{path}", endpoints=[backend.address]))
        gateway.wait_ready()
        session = stack.enter_context(connect(path))
        talk(session)
        os.unlink(path)
        gateway.signal(signal.SIGUSR2)
        gateway.wait_line(READY, 40, count=2)
        talk(session)
        with connect(path) as another:
            talk(another)


def test_the_command_says_what_is_wrong_in_one_line(tmp_path: Path) -> None:
    """Wrong usage is exit 2, and names the flag and the value."""
    for value, said in (
        ("unix:relative", "expected unix: and the absolute path"),
        (f"unix:/{'x' * 107}", "the path is too long, expected at most 107 bytes"),
        ("unix:/a,mode=999", "expected mode= and three octal digits"),
    ):
        ended = subprocess.run(
            [*COMMAND, "start", f"--listen-addr={value}"],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert ended.returncode == 2
        [line] = ended.stderr.splitlines()
        assert "--listen-addr" in line
        assert said in line


def test_a_name_without_a_file_is_listened_on_again(tmp_path: Path) -> None:
    """What a stop has shut down is used no more, though the service manager has it."""
    name = f"@{tmp_path}"
    argv = [*COMMAND, "start", f"--listen-addr=unix:{name}", "--workers=1", "--drain-timeout=0s"]
    with Backend(echo) as backend, contextlib.ExitStack() as stack:
        manager = Manager(tmp_path, [*argv, f"--endpoints={backend.address}"], tmp_path / "log")
        stack.callback(manager.stop)
        for stop in (signal.SIGTERM, signal.SIGKILL, None):
            manager.start()
            with connect(name) as session:
                talk(session)
            if stop is signal.SIGKILL:  # between the shutdown and the word to the manager
                (fd,) = (fd for stored, fd in manager.stored if stored.startswith("unix."))
                with socket.socket(fileno=os.dup(fd)) as shared:
                    shared.shutdown(socket.SHUT_RD)
            if stop is not None:
                manager.end_main(stop)
            if stop is signal.SIGTERM:
                assert [stored for stored, _ in manager.stored if stored != "scoreboard"] == []


def test_a_start_that_fails_leaves_no_socket_to_the_next_one(tmp_path: Path) -> None:
    """It ends with 1 each time, as long as another program has one of the addresses."""
    ours, taken = str(tmp_path / "s"), str(tmp_path / "taken")
    argv = [*COMMAND, "start", "--handover", f"--listen-addr=unix:{ours},unix:{taken}"]
    with Backend(echo) as backend, Backend(echo, path=taken):
        manager = Manager(tmp_path, [*argv, f"--endpoints={backend.address}"], tmp_path / "log")
        for _ in range(2):
            main = manager.launch()
            manager.until(lambda main=main: main.poll() is not None, 60)  # type: ignore[misc]
            manager.serve()
            assert main.returncode == 1
            assert manager.stored == []
            assert not os.path.exists(ours)
        manager.stop()
