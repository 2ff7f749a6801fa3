"""USR2 into trouble: whatever is wrong with the new image or with the host, the service goes on."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.descriptors import close_all, receive
from supervisor.cli.admin_client import fetch_status
from supervisor.listen_search import KEPT
from tests.backends import Backend, echo
from tests.clients import connect, echoes, talk
from tests.gateway import COMMAND, READY, Gateway, running
from tests.installation import Installation, point
from tests.integration.handover.test_record import Managed
from tests.long_tests import long
from tests.support import free_port, wait_until

pytestmark = pytest.mark.slow(seconds=5)

REFUSED = "upgrade failed, the old image goes on"
OLD_WORKERS = "upgrade failed, the old workers go on"
OUTSIDE_PREFLIGHT = "import os\nif 'ETCD_GATEWAY_PREFLIGHT' not in os.environ:\n    "
NOT_IMPORTABLE = OUTSIDE_PREFLIGHT + "raise ImportError('no')"


@contextlib.contextmanager
def served(*flags: str, **options: object) -> Iterator[Gateway]:
    """A gateway whose service must not notice anything: a session lives, a client is served."""
    with (
        Backend(echo) as backend,
        running(*flags, endpoints=[backend.address], **options) as gateway,
        connect(gateway.address) as session,
    ):
        talk(session)
        yield gateway
        talk(session)
        with connect(gateway.address) as another:
            talk(another)
        assert gateway.process.poll() is None


def errors(gateway: Gateway, msg: str) -> list[str]:
    return [line["error"] for line in gateway.lines(msg)]


def take_admin_address(gateway: Gateway, config: Path) -> None:
    taken = socket.create_server(("127.0.0.1", 0))
    config.write_text(f'admin-addr = "127.0.0.1:{taken.getsockname()[1]}"\n')
    # Held for as long as the test runs: the descriptor is the gateway object's.
    gateway.held = taken  # type: ignore[attr-defined]


def refuse_config(_: Gateway, config: Path) -> None:
    config.write_text("nonsense = 1\n")


def lower_limit(gateway: Gateway, _: Path) -> None:
    resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE, (40, 40))


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (take_admin_address, "cannot serve the admin address"),
        (refuse_config, "nonsense"),
        (lower_limit, "the limit of open files is 40"),
    ],
)
def test_a_start_that_would_fail_is_refused_before_anything_happens(
    tmp_path: Path, trouble: Callable[[Gateway, Path], None], reason: str
) -> None:
    """The reason is in the log line, and the workers are the same."""
    config = tmp_path / "gateway.toml"
    config.write_text('drain-timeout = "1s"\n')
    with served(f"--config-file={config}") as gateway:
        workers = gateway.workers()
        trouble(gateway, config)
        gateway.signal(signal.SIGUSR2)
        assert reason in gateway.wait_line(REFUSED)["error"]
        assert gateway.workers() == workers
        assert gateway.lines("upgrading") == []
        with contextlib.suppress(AttributeError):
            gateway.held.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "library", ["aiohttp", long("prometheus_client"), long("dns"), "h11", long("uvloop")]
)
def test_half_an_installation_is_refused(tmp_path: Path, library: str) -> None:
    """Also where a library is imported only later."""
    new = Installation(tmp_path / "etcd-gateway")
    with served(command=[str(new.script)]) as gateway:
        new.shadow(library, "raise ImportError('half installed')\n")
        gateway.signal(signal.SIGUSR2)
        assert "half installed" in gateway.wait_line(REFUSED)["error"]


@pytest.mark.parametrize(
    "code",
    [
        "raise ImportError('no relay')",
        long("raise SyntaxError('no relay')"),
        "import os\nif os.fork() == 0:\n    pass\nos._exit(5)",
    ],
)
def test_a_new_release_that_cannot_relay_is_refused(tmp_path: Path, code: str) -> None:
    """What breaks in the worker breaks in the trial first."""
    new = Installation(tmp_path / "etcd-gateway")
    with served(command=[str(new.script)]) as gateway:
        new.insert("gateway/sessions/relay.py", code)
        gateway.signal(signal.SIGUSR2)
        assert gateway.wait_line(REFUSED)["error"]


def test_a_worker_that_raises_at_its_first_step_is_refused(tmp_path: Path) -> None:
    """A trial worker is forked, and its last words are the reason."""
    new = Installation(tmp_path / "etcd-gateway")
    worker = new.folder / "gateway/worker.py"
    with served(command=[str(new.script)]) as gateway:
        text = worker.read_text()
        begin = "loop = uvloop.new_event_loop()"
        assert begin in text
        worker.write_text(text.replace(begin, f"{begin}\n    raise ValueError('told so')"))
        gateway.signal(signal.SIGUSR2)
        assert "told so" in gateway.wait_line(REFUSED)["error"]


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("supervisor/__init__.py", "raise ImportError('not outside')"),
        long("supervisor/core/flags.py", "raise ImportError('not outside')"),
        long("supervisor/endpoint_tracker.py", "raise ImportError('not outside')"),
        ("gateway/process_title.py", "raise ImportError('not outside')"),
    ],
)
def test_what_fails_after_exec_goes_back_to_the_old_image(
    tmp_path: Path, module: str, code: str
) -> None:
    """The preflight went well, the start does not: the image before is executed again."""
    old, new = Installation(tmp_path / "v1"), Installation(tmp_path / "v2")
    new.insert(module, OUTSIDE_PREFLIGHT + code)
    current = tmp_path / "current"
    point(current, old.folder)
    with served("--drain-timeout=100ms", command=[str(current / "etcd-gateway")]) as gateway:
        workers = set(gateway.workers())
        point(current, new.folder)
        gateway.signal(signal.SIGUSR2)
        wait_until(lambda: gateway.text().count(f'"{READY}"') == 2, 20)
        assert f'"{REFUSED}"' in gateway.text()
        assert workers == set(gateway.workers())


def test_an_upgrade_that_meets_a_changed_file_goes_back_to_what_serves(tmp_path: Path) -> None:
    """The file has another listen address since the preflight, which only a restart can use.

    The image before reads the file too, and goes on as it was; the status names the flag.
    """
    config, port, admin = tmp_path / "gateway.toml", free_port(), f"unix:{tmp_path}/admin"
    listen, more = f"127.0.0.1:{port}", f"127.0.0.1:{free_port()}"
    config.write_text(f'listen-addr = "{listen}"\n')
    changed = f"open({str(config)!r}, 'w').write('listen-addr = \"{listen},{more}\"')"
    old, new = Installation(tmp_path / "v1"), Installation(tmp_path / "v2")
    new.insert("supervisor/__init__.py", OUTSIDE_PREFLIGHT + changed)
    current = tmp_path / "current"
    point(current, old.folder)
    flags = (f"--config-file={config}", f"--admin-addr={admin}")
    command = [str(current / "etcd-gateway")]
    with (
        Backend(echo) as backend,
        running(*flags, endpoints=[backend.address], listen="", command=command) as gateway,
        connect(("127.0.0.1", port)) as session,
    ):
        talk(session)
        workers = set(gateway.workers())
        point(current, new.folder)
        gateway.signal(signal.SIGUSR2)
        gateway.wait_line(READY, count=2)
        assert [listen in error for error in errors(gateway, KEPT)] == [True]
        wait_until(lambda: set(gateway.workers()) == workers, 20, "nobody answers meanwhile")
        status = fetch_status([admin])
        assert status["listen"] == [listen]
        assert status["reload"]["needs_restart"] == ["--listen-addr"]
        talk(session)


def test_an_upgrade_to_an_address_that_cannot_be_had_is_mended_by_the_next(tmp_path: Path) -> None:
    """The file has the address of before again, which the old workers serve; so do new ones."""
    config, port = tmp_path / "gateway.toml", free_port()
    good = f'listen-addr = "127.0.0.1:{port}"\n'
    config.write_text(good)
    place = Installation(tmp_path / "etcd-gateway")
    changed = f"open({str(config)!r}, 'w').write('listen-addr = \"192.0.2.1:4444\"')"
    with (
        Backend(echo) as backend,
        running(
            f"--config-file={config}",
            "--workers=2",
            endpoints=[backend.address],
            listen="",
            command=[str(place.script)],
        ) as gateway,
        connect(("127.0.0.1", port)) as session,
    ):
        talk(session)
        workers = set(gateway.workers())
        place.install()
        place.insert("supervisor/__init__.py", OUTSIDE_PREFLIGHT + changed)
        gateway.signal(signal.SIGUSR2)
        gateway.wait_line(OLD_WORKERS)
        place.install()
        config.write_text(good)
        gateway.signal(signal.SIGUSR2)
        gateway.wait_line(READY, count=2)
        assert len(set(gateway.workers()) - workers) == 2
        for _ in range(20):
            assert echoes(("127.0.0.1", port), 10)
        talk(session)


def test_workers_that_die_only_after_exec_go_back_to_the_old_image(tmp_path: Path) -> None:
    """No loop of dying workers: after five the old image serves as before, by its old workers."""
    old, new = Installation(tmp_path / "v1"), Installation(tmp_path / "v2")
    break_worker(new)
    current = tmp_path / "current"
    point(current, old.folder)
    with served("--drain-timeout=100ms", command=[str(current / "etcd-gateway")]) as gateway:
        workers = set(gateway.workers())
        point(current, new.folder)
        gateway.signal(signal.SIGUSR2)
        wait_until(lambda: gateway.text().count(f'"{READY}"') == 2, 20)
        assert f'"{REFUSED}"' in gateway.text()
        wait_until(lambda: set(gateway.workers()) == workers, 20, "nothing else is left")


def test_an_image_that_is_gone_back_to_replaces_workers_whose_scoreboard_is_gone(
    tmp_path: Path,
) -> None:
    """A release with another layout made it anew, mostly under the same number."""
    old, new = Installation(tmp_path / "v1"), Installation(tmp_path / "v2")
    break_worker(new)
    scoreboard = new.folder / "gateway/scoreboard.py"
    scoreboard.write_text(scoreboard.read_text().replace("\nLAYOUT = ", "\nLAYOUT = 1000 + "))
    current = tmp_path / "current"
    point(current, old.folder)
    with served(command=[str(current / "etcd-gateway")]) as gateway:
        workers = gateway.workers()
        point(current, new.folder)
        gateway.signal(signal.SIGUSR2)
        gateway.wait_line(READY, count=2)
        assert gateway.lines(REFUSED)
        assert len(gateway.lines("worker ready")) == 2 * len(workers)


@pytest.mark.parametrize("where", [long("supervisor/__init__.py"), "gateway/worker.py"])
def test_after_an_upgrade_was_undone_the_next_one_follows_the_link(
    tmp_path: Path, where: str
) -> None:
    """The image that was gone back to is executed under its own path, and is not the next one."""
    old, new = Installation(tmp_path / "v1"), Installation(tmp_path / "v2")
    if where == "gateway/worker.py":
        break_worker(new)
    else:
        new.insert(where, NOT_IMPORTABLE)
    current, ran = tmp_path / "current", tmp_path / "ran"
    point(current, old.folder)
    with served(command=[str(current / "etcd-gateway")]) as gateway:
        point(current, new.folder)
        gateway.signal(signal.SIGUSR2)
        wait_until(lambda: gateway.text().count(f'"{READY}"') == 2, 20)
        assert f'"{REFUSED}"' in gateway.text()
        new.install()
        new.insert("supervisor/__init__.py", f"{OUTSIDE_PREFLIGHT}open({str(ran)!r}, 'w').close()")
        gateway.signal(signal.SIGUSR2)
        wait_until(lambda: gateway.text().count(f'"{READY}"') == 3, 20)
        assert ran.exists()


def break_worker(installation: Installation) -> None:
    worker = installation.folder / "gateway/worker.py"
    begin = "loop = uvloop.new_event_loop()"
    text = worker.read_text()
    assert begin in text
    outside = "if 'ETCD_GATEWAY_PREFLIGHT' not in os.environ:\n        raise ValueError('told so')"
    worker.write_text(text.replace(begin, f"{begin}\n    {outside}"))


def test_where_the_old_image_is_gone_the_old_workers_serve_until_it_is_mended(
    tmp_path: Path,
) -> None:
    """Replaced in place, there is no way back; the next USR2 with a good release is the way out."""
    place = Installation(tmp_path / "etcd-gateway")
    with served(command=[str(place.script)]) as gateway:
        workers = set(gateway.workers())
        place.install()
        break_worker(place)
        gateway.signal(signal.SIGUSR2)
        wait_until(lambda: f'"{OLD_WORKERS}"' in gateway.text(), 20)
        assert workers <= set(gateway.workers())
        with connect(gateway.address) as client:
            talk(client)
        place.install()
        gateway.signal(signal.SIGUSR2)
        wait_until(lambda: gateway.text().count(f'"{READY}"') == 2, 20)


@pytest.mark.parametrize("what", ["its workers", "itself"])
def test_the_watchdog_is_fed_while_the_old_workers_serve(tmp_path: Path, what: str) -> None:
    """The new image cannot start, and its service manager must not take it for one that hangs."""
    place = Installation(tmp_path / "etcd-gateway")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        env = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}

        def heard() -> list[bytes]:
            texts: list[bytes] = []
            with contextlib.suppress(BlockingIOError):
                while True:
                    text, fds = receive(manager, 4096)
                    close_all(fds)
                    texts.append(text)
            return texts

        with served(command=[str(place.script)], env=env) as gateway:
            wait_until(lambda: b"WATCHDOG=1" in heard())
            place.install()
            if what == "itself":
                place.insert("supervisor/endpoint_tracker.py", NOT_IMPORTABLE)
            else:
                break_worker(place)
            gateway.signal(signal.SIGUSR2)
            wait_until(lambda: "the old workers go on" in gateway.text(), 20)
            for _ in range(3):
                heard()
                wait_until(lambda: b"WATCHDOG=1" in heard())


def test_where_the_old_image_is_gone_a_start_that_fails_is_tried_again(tmp_path: Path) -> None:
    """The process stays and hears of HUP, which is a reload too; the workers never notice."""
    place = Installation(tmp_path / "etcd-gateway")
    with served(command=[str(place.script)]) as gateway:
        place.install()
        place.insert("supervisor/endpoint_tracker.py", NOT_IMPORTABLE)
        gateway.signal(signal.SIGUSR2)
        wait_until(lambda: gateway.text().count("trying again in") >= 2, 20)
        with connect(gateway.address) as client:
            talk(client)
        place.install()
        gateway.signal(signal.SIGHUP)
        wait_until(lambda: gateway.text().count(f'"{READY}"') == 2, 20)
        wait_until(lambda: '"reload complete"' in gateway.text(), 20)  # somebody may wait for it


@contextlib.contextmanager
def waiting(
    folder: Path, *flags: str, **options: object
) -> Iterator[tuple[Gateway, socket.socket]]:
    """A gateway whose upgrade failed, and is tried again, with a session."""
    place = Installation(folder / "etcd-gateway")
    with (
        Backend(echo) as backend,
        running(
            *flags, endpoints=[backend.address], command=[str(place.script)], **options
        ) as gateway,
        connect(gateway.address) as session,
    ):
        talk(session)
        place.install()
        place.insert("supervisor/endpoint_tracker.py", NOT_IMPORTABLE)
        gateway.signal(signal.SIGUSR2)
        wait_until(lambda: "trying again in" in gateway.text(), 20)
        yield gateway, session


def test_a_stop_is_heard_while_a_start_is_tried_again(tmp_path: Path) -> None:
    """The workers drain, the process ends with 0 after them, and leaves no file."""
    listen, admin = tmp_path / "listen", tmp_path / "admin"
    flags = (f"--listen-addr=unix:{listen}", f"--admin-addr=unix:{admin}")
    with waiting(tmp_path, *flags, "--drain-timeout=60s") as (gateway, session):
        workers = gateway.workers()
        gateway.signal(signal.SIGTERM)
        wait_until(lambda: "draining" in gateway.text(), 20)
        wait_until(lambda: not listen.exists() and not admin.exists(), 10)
        wait_until(lambda: not echoes(gateway.address, 1), 10, "nobody is accepted any more")
        talk(session)
        assert gateway.process.poll() is None
        session.close()
        assert gateway.process.wait(60) == 0
        wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in workers), 10)
        assert "drained" in gateway.text()


def test_a_second_stop_while_a_start_is_tried_again_ends_sessions_at_once(tmp_path: Path) -> None:
    """They end by a reset, as at every other stop."""
    with waiting(tmp_path, "--drain-timeout=300s") as (gateway, session):
        gateway.signal(signal.SIGINT)
        wait_until(lambda: "draining" in gateway.text(), 20)
        gateway.signal(signal.SIGTERM)
        assert gateway.process.wait(60) == 0
        with pytest.raises(ConnectionResetError):
            session.recv(1)


def test_a_worker_that_does_not_drain_in_time_is_killed(tmp_path: Path) -> None:
    """Also where the master is one that tries a start again."""
    with waiting(tmp_path, "--drain-timeout=100ms") as (gateway, _):
        workers = gateway.workers()
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        gateway.signal(signal.SIGTERM)
        assert gateway.process.wait(60) == 0
        wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in workers), 10)


def test_with_handover_term_leaves_the_workers_while_a_start_is_tried_again(
    tmp_path: Path,
) -> None:
    """The next master is to find them; they go on while the service manager has their pipes."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        env = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        flags = ("--handover", "--drain-timeout=300s")
        with waiting(tmp_path, *flags, env=env) as (gateway, session):
            gateway.signal(signal.SIGTERM)
            assert gateway.process.wait(60) == 0
            assert "drained" not in gateway.text()
            talk(session)


def test_the_way_to_the_admin_address_is_gone(tmp_path: Path) -> None:
    """A start would fail for it; an upgrade goes on without it, and opens it when it is back."""
    folder = tmp_path / "run"
    folder.mkdir()
    with served(f"--admin-addr=unix:{folder}/admin") as gateway:
        gateway.wait_line("admin address is open")
        subprocess.run(["rm", "-r", str(folder)], check=True)
        gateway.signal(signal.SIGUSR2)
        gateway.wait_line(READY, count=2)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts, which needs root")
def test_a_listen_name_that_does_not_resolve_any_more(tmp_path: Path) -> None:
    """It is bound already: DNS is not needed."""
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost gw.test\n")
    port = free_port()
    mount = f'mount --bind {hosts} /etc/hosts && exec "$@"'
    prefix = ["unshare", "--mount", "sh", "-c", mount, "sh"]
    with (
        Backend(echo) as backend,
        Gateway(endpoints=[backend.address], listen=f"gw.test:{port}", prefix=prefix) as gateway,
    ):
        gateway.wait_ready()
        hosts.write_text("127.0.0.1 localhost\n")
        gateway.signal(signal.SIGUSR2)
        gateway.wait_line(READY, count=2)
        with connect(("127.0.0.1", port)) as client:
            talk(client)


def test_term_during_the_preflight_stops_the_gateway(tmp_path: Path) -> None:
    """The child that tries the start is ended with it."""
    new = Installation(tmp_path / "etcd-gateway")
    with running("--drain-timeout=1s", command=[str(new.script)]) as gateway:
        new.insert("gateway/process_title.py", "import time\ntime.sleep(60)")
        workers = set(gateway.workers())
        gateway.signal(signal.SIGUSR2)
        wait_until(lambda: set(gateway.workers()) - workers, 10, "the preflight")
        [trial] = set(gateway.workers()) - workers
        gateway.signal(signal.SIGHUP)
        gateway.wait_line("reload complete")
        gateway.signal(signal.SIGTERM)
        assert gateway.process.wait(60) == 0
        wait_until(lambda: not os.path.exists(f"/proc/{trial}"), 10)


def test_term_while_the_old_image_is_gone_back_to_stops_the_gateway(tmp_path: Path) -> None:
    """A probe that is under way is waited for; a stop that comes meanwhile must not be lost."""
    old, new = Installation(tmp_path / "v1"), Installation(tmp_path / "v2")
    break_worker(new)
    current = tmp_path / "current"
    point(current, old.folder)
    probes = ("--health-check=http", "--health-timeout=15s", "--health-interval=100ms")
    with (
        contextlib.ExitStack() as stack,
        socket.create_server(("127.0.0.1", 0)) as silent,
        Gateway(
            *probes,
            "--drain-timeout=3s",
            endpoints=[f"127.0.0.1:{silent.getsockname()[1]}"],
            command=[str(current / "etcd-gateway")],
        ) as gateway,
    ):
        gateway.wait_ready()
        session = stack.enter_context(connect(gateway.address))
        session.sendall(b"hello")  # the drain waits for its end
        point(current, new.folder)
        gateway.signal(signal.SIGUSR2)
        gateway.wait_line("worker exited", count=5)
        gateway.signal(signal.SIGTERM)
        gateway.wait_line("draining")
        assert gateway.process.wait(60) == 0
        assert gateway.text().count(f'"{READY}"') == 1


def test_a_reload_is_not_taken_for_the_end_of_a_start(tmp_path: Path) -> None:
    """READY=1 is said when every worker is ready, and not because of HUP before that."""
    place = Installation(tmp_path / "etcd-gateway")
    with Backend(echo) as backend:
        gateway = Managed(tmp_path, "--workers=1", f"--endpoints={backend.address}")
        manager = gateway.manager
        manager.argv = [str(place.script), *manager.argv[len(COMMAND) :]]
        try:
            manager.start()
            manager.end_main(signal.SIGTERM)
            break_worker(place)
            main = manager.launch()
            manager.until(lambda: OLD_WORKERS in manager.log.read_text(), 60)
            manager.heard.clear()
            main.send_signal(signal.SIGHUP)
            gateway.until(lambda status: status["reload"]["number"] == 1)
            manager.serve()
            assert not manager.ready
            assert not any("RELOADING" in text for text in manager.heard)
            assert echoes(gateway.address, 10)
        finally:
            manager.stop()
