"""The commands ``status`` and ``reload`` against a real admin address."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from supervisor.cli import admin_client, commands, finding
from supervisor.cli import reload as reload_command
from supervisor.cli import sessions as sessions_command
from supervisor.cli import status as status_command
from supervisor.cli.figures import lasting, size
from tests.admin_double import NAMES, AdminDouble
from tests.gateway import COMMAND, environment
from tests.servers import answer, greet, serving
from tests.support import free_port, wait_until

WATCH = """
import signal, sys
from supervisor.cli import status as status_command
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
sys.exit(status_command.run(sys.argv[1:], as_json=True, watch=True))
"""


@pytest.fixture
def double() -> Iterator[AdminDouble]:
    with AdminDouble() as process:
        yield process


def test_status_prints_who_serves_what(
    double: AdminDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    """Endpoints, workers, sessions and discovery on whole lines, exit 0 when ready."""
    double.tell(f"traffic {NAMES[0]} 12 5000000")
    assert status_command.run([double.address]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "ready: 3 of 3 endpoints active, 2 of 2 workers ready, 12 sessions"
    endpoint = next(line for line in lines if line.startswith(NAMES[0]))
    assert endpoint.split()[1:2] + endpoint.split()[3:7] == ["active", "12", "12", "4.8", "MiB"]
    assert endpoint.split()[-2:] == ["0", "5"]
    assert any("etcd-gateway 1.0.0 on 127.0.0.1:23790, [::1]:23790" in line for line in lines)
    assert any(line.startswith("slot 1") and "ready" in line for line in lines)
    assert any(line.startswith("discovery: SRV records of example.com") for line in lines)


def test_status_says_what_is_down(double: AdminDouble, capsys: pytest.CaptureFixture[str]) -> None:
    """A degraded gateway exits 3 and says why, also for a reload that failed."""
    for name in NAMES:
        double.tell(f"endpoint {name} inactive")
    double.tell("worker 1 backoff")
    double.tell("reload failed")
    os.kill(double.process.pid, signal.SIGHUP)
    wait_until(
        lambda: (status_command.run([double.address]), "unknown key" in capsys.readouterr().out)[1]
    )
    assert status_command.run([double.address]) == 3
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == [
        "degraded: 0 of 3 endpoints active, 1 of 2 workers ready, 0 sessions",
        "not ready: no endpoint is active",
        "not ready: no live worker in slot 1",
        "the last reload failed: config file: unknown key 'bogus'",
    ]
    assert any("dial: connection refused" in line for line in lines)
    assert [line.split()[1] for line in lines if line.startswith("slot")] == ["1", "0"]


def test_a_terminal_shows_what_is_wrong_and_as_much_as_fits(double: AdminDouble) -> None:
    """On 24 lines with 40 endpoints the inactive ones are on top and the rest is counted."""
    double.tell("many 37")
    double.tell("endpoint member36.example.com:2379 inactive")
    double.tell("endpoint member7.example.com:2379 inactive")
    lines = run_on_terminal("status", f"--admin-addr={double.address}", rows=24, columns=100)
    assert lines[0] == "ready: 38 of 40 endpoints active, 2 of 2 workers ready, 0 sessions"
    table = lines[lines.index("") + 2 :]
    assert [line.split()[:2] for line in table[:3]] == [
        ["member7.example.com:2379", "inactive"],
        ["member36.example.com:2379", "inactive"],
        [NAMES[0], "active"],
    ]
    assert any(line.startswith("... ") and line.endswith(" more, all active") for line in lines)
    assert any(line.startswith("discovery:") for line in lines)
    assert len(lines) <= 23


@pytest.mark.parametrize("variable", ["FORCE_COLOR", "TTY_COMPATIBLE"])
def test_a_pipe_gets_everything_whatever_colors_are_asked_for(
    double: AdminDouble, variable: str
) -> None:
    """Nothing is cut to the size of a terminal, and nothing moves a cursor."""
    double.tell("many 60")
    argv = [*COMMAND, "status", f"--admin-addr={double.address}"]
    environ = {**os.environ, variable: "1", "TERM": "xterm", "COLUMNS": "40", "LINES": "10"}
    shown = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=60)
    assert shown.returncode == 0
    assert all(f"member{n}.example.com:2379 " in shown.stdout for n in range(60))
    assert "..." not in shown.stdout
    assert "…" not in shown.stdout
    watch = subprocess.Popen([*argv, "--watch"], env=environ, stdout=subprocess.PIPE)
    assert watch.stdout is not None
    begin = watch.stdout.readline()
    watch.terminate()
    assert watch.wait(60) == -signal.SIGTERM
    assert b"2 of 2 workers ready" in begin
    assert b"\x1b[?" not in begin + watch.stdout.read()
    watch.stdout.close()


def test_a_pipe_gets_whole_names_and_whole_errors(double: AdminDouble) -> None:
    """One line for each endpoint, however long its name and its last error are."""
    name = f"{'a' * 60}.{'b' * 60}.{'c' * 60}.example.com:2379"
    reason = " ".join(f"word{n}" for n in range(99))
    double.tell(f"refuse {name} {reason}")
    argv = [*COMMAND, "status", f"--admin-addr={double.address}"]
    shown = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    (line,) = [line for line in shown.stdout.splitlines() if line.startswith(name)]
    assert line.rstrip().endswith(reason)


def test_a_long_name_hides_neither_a_state_nor_an_error(double: AdminDouble) -> None:
    """Where a terminal is too narrow for all of it, the name takes several lines."""
    name = f"infra0.{'a' * 50}.example.com:2379"
    double.tell(f"refuse {name} its certificate has expired")
    lines = run_on_terminal("status", f"--admin-addr={double.address}", rows=40, columns=80)
    first = next(n for n, line in enumerate(lines) if line.startswith("infra0.aaa"))
    assert " refused " in lines[first]
    cells = [line[: lines[first].index(" ")].strip() for line in lines[first : first + 3]]
    assert "".join(cells).startswith(name)
    assert "has expired" in " ".join(lines[first : first + 3])
    assert "…" not in "".join(lines)


def test_an_address_that_is_down_is_named(
    double: AdminDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    """An active endpoint with an inactive address comes first, with the address and its error."""
    double.tell(f"half {NAMES[1]} 10.0.1.99 connection refused")
    assert status_command.run([double.address]) == 0
    lines = capsys.readouterr().out.splitlines()
    first = lines[lines.index("") + 2]
    assert first.startswith(NAMES[1])
    assert first.rstrip().endswith("10.0.1.99 inactive: connection refused")


ESCAPES = "\x1b]0;title\x07\x1b[2Jno"
"""What a terminal that is given it takes for commands."""


def test_no_endpoint_writes_to_the_terminal(
    double: AdminDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    """What endpoints and DNS say is shown with escapes, in a table and in a line."""
    double.tell(f"degrade {NAMES[0]} {ESCAPES}")
    double.tell(f"half {NAMES[1]} 10.0.1.99 {ESCAPES}")
    double.tell(f"refuse evil.example.com:1 {ESCAPES}")
    status_command.run([double.address])
    out = capsys.readouterr().out
    assert out.count("\\x1b[2Jno") == 3
    assert "\x1b" not in out


def test_no_server_writes_to_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    """Whoever answers at the admin address may be another program."""
    with serving(answer("500 Oh\x1b[2J", ESCAPES.encode())) as server:
        for command in (status_command, reload_command):
            assert command.run([f"127.0.0.1:{server.port}"]) > 0
    said = capfd.readouterr().err
    assert said.count("\\x1b[2Jno") == 2
    assert "\x1b" not in said


def test_another_programs_document_is_none_of_ours(capfd: pytest.CaptureFixture[str]) -> None:
    """It is said to be no etcd-gateway, whatever keys it has in common with our own."""
    documents = [b'{"uptime_s": 1}', b'{"sessions": []}', b"[]", b'{"uptime_s": 1, "state": "x"}']
    for body in (*documents, b'{"state": "\xff"}', b"9" * 5000, b"[" * 50_000):
        with serving(answer("200 OK", body)) as server:
            address = f"127.0.0.1:{server.port}"
            assert status_command.run([address]) == 4
            assert sessions_command.run([address], sessions_command.Wish()) == 4
            assert reload_command.run([address]) == 1
        assert capfd.readouterr().err.count("what answers is no etcd-gateway") == 3


def drip(conn: socket.socket) -> None:
    """Sends a header without end, too little at a time to be waited for."""
    with contextlib.suppress(OSError):
        while True:
            conn.sendall(b"H")
            time.sleep(0.01)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_an_answer_that_comes_too_slowly_is_none(
    family: socket.AddressFamily,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The time is that of the whole request, not of one read."""
    monkeypatch.setattr(admin_client, "TIMEOUT_S", 0.3)
    monkeypatch.setattr(admin_client, "SESSIONS_TIMEOUT_S", 0.3)
    path = str(tmp_path / "admin")
    where = path if family == socket.AF_UNIX else ("127.0.0.1", 0)
    listener = socket.create_server(where, family=family)
    with serving(drip, listener=listener) as server:
        address = f"unix:{path}" if family == socket.AF_UNIX else f"127.0.0.1:{server.port}"
        assert status_command.run([address]) == 4
        assert sessions_command.run([address], sessions_command.Wish()) == 4
        assert reload_command.run([address]) == 1
    assert capfd.readouterr().err.count("no answer within 0.3 s") == 3


def test_an_answer_that_breaks_off_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    """In words for operators, and what is no HTTP is no etcd-gateway."""

    def break_off(conn: socket.socket) -> None:
        conn.recv(65536)
        conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{}")
        conn.shutdown(socket.SHUT_WR)

    def hang_up(conn: socket.socket) -> None:
        conn.recv(65536)
        conn.shutdown(socket.SHUT_WR)

    said = {
        break_off: "the answer ends too early, expected the whole document",
        hang_up: "the connection was closed without an answer",
        greet: "what answers is no etcd-gateway",
    }
    for script, text in said.items():
        with serving(script) as server:
            address = f"127.0.0.1:{server.port}"
            assert status_command.run([address]) == 4
            assert capfd.readouterr().err.endswith(f"answers at {address}: {text}\n")


def test_watch_shows_the_same_in_place(double: AdminDouble) -> None:
    """--watch begins with the same sentence, and shows as much as fits."""
    double.tell("many 37")
    lines = run_on_terminal(
        "status", f"--admin-addr={double.address}", "--watch", rows=20, columns=90, watch=True
    )
    assert lines[0].startswith("ready: 40 of 40 endpoints active")
    assert any(line.startswith("... ") for line in lines)


@pytest.mark.parametrize("command", ["status", "sessions"])
def test_watch_on_a_terminal_that_can_only_print(double: AdminDouble, command: str) -> None:
    """One answer below the other, as into a pipe."""
    lines = run_on_terminal(
        command, "--admin-addr=127.0.0.1:1", "--watch", rows=20, columns=90, watch=True, term="dumb"
    )
    assert lines[0].startswith("no gateway answers at 127.0.0.1:1")
    if command == "status":
        argv = (command, f"--admin-addr={double.address}", "--watch")
        lines = run_on_terminal(*argv, rows=20, columns=90, watch=True, term="dumb")
        assert lines[0].startswith("ready: 3 of 3 endpoints active")


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_whoever_ends_a_watch_gets_the_terminal_back(
    double: AdminDouble, ending: signal.Signals
) -> None:
    """The cursor is shown again, and the screen is the one of before."""
    argv = [*COMMAND, "status", f"--admin-addr={double.address}", "--watch"]
    pid, fd = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "xterm"
        os.execv(argv[0], argv)
    seen = bytearray()
    while b"discovery:" not in seen:
        seen += os.read(fd, 4096)
    os.kill(pid, ending)
    with contextlib.suppress(OSError):  # EIO: the other side is closed
        while piece := os.read(fd, 4096):
            seen += piece
    _, status = os.waitpid(pid, 0)
    os.close(fd)
    assert os.waitstatus_to_exitcode(status) == (0 if ending is signal.SIGINT else 128 + ending)
    assert seen.index(b"\x1b[?25l") < seen.index(b"\x1b[?25h")
    assert seen.index(b"\x1b[?1049h") < seen.index(b"\x1b[?1049l")


def run_on_terminal(
    *arguments: str, rows: int, columns: int, watch: bool = False, term: str = "xterm"
) -> list[str]:
    """What the command shows on a terminal of this size, without colors."""
    pid, fd = pty.fork()
    if pid == 0:
        os.environ["TERM"] = term
        os.execv(COMMAND[0], [*COMMAND, *arguments])
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    seen = bytearray()
    with contextlib.suppress(OSError):  # EIO: the other side is closed
        while piece := os.read(fd, 4096):
            seen += piece
            if watch and (b"discovery:" in seen or b"no gateway answers" in seen):
                os.kill(pid, signal.SIGINT)
    os.waitpid(pid, 0)
    os.close(fd)
    screens = seen.decode().split("\x1b[H")  # the cursor goes home before each of them
    text = next((each for each in screens if "discovery:" in each), screens[0])
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
    return [line.rstrip() for line in text.replace("\r", "").splitlines()]


def test_status_as_json_is_the_document(
    double: AdminDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing but the document."""
    assert status_command.run([double.address], as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["listen"] == ["127.0.0.1:23790", "[::1]:23790"]


def test_status_takes_the_first_address_that_answers(
    double: AdminDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    """A gateway may have several admin addresses, and one of them may be out of reach."""
    assert status_command.run([f"127.0.0.1:{free_port()}", double.address], as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "ready"


def test_nobody_there_is_one_clear_line(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Exit 4, the addresses and the reasons, no traceback."""
    gone = f"127.0.0.1:{free_port()}"
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.listen()
        assert status_command.run([gone, f"unix:{tmp_path / 'x'}"]) == 4
    error = capfd.readouterr().err
    assert error == (
        f"etcd-gateway: no gateway answers at {gone}: Connection refused; "
        f"unix:{tmp_path / 'x'}: No such file or directory\n"
    )


def test_watch_goes_on_until_interrupted(double: AdminDouble) -> None:
    """One document a line; an interrupt ends it with the code of what it saw last."""
    argv = [sys.executable, "-c", WATCH, double.address]
    with (
        subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as watching,
        contextlib.ExitStack() as stack,
    ):
        stack.callback(watching.kill)
        assert watching.stdout is not None
        assert json.loads(watching.stdout.readline())["state"] == "ready"
        double.tell("drain")
        wait_until(lambda: json.loads(watching.stdout.readline())["state"] == "draining")  # type: ignore[union-attr]
        watching.send_signal(signal.SIGINT)
        assert watching.wait(60) == 3


def test_reload_waits_for_the_outcome(
    double: AdminDouble, capfd: pytest.CaptureFixture[str]
) -> None:
    """Exit 0 and a line when it is complete, exit 1 and the reason when it failed.

    What of the configuration it could not apply is told beside that.
    """
    assert reload_command.run([double.address]) == 0
    assert capfd.readouterr() == ("reload complete\n", "")
    double.tell("reload complete --workers")
    assert reload_command.run([double.address]) == 0
    warning = "warning: changed in the configuration, used after a restart: --workers"
    assert capfd.readouterr() == ("reload complete\n", f"etcd-gateway: {warning}\n")
    double.tell("reload failed")
    assert reload_command.run([double.address]) == 1
    assert capfd.readouterr().err == (
        "etcd-gateway: reload failed: config file: unknown key 'bogus'\n"
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
@pytest.mark.parametrize("command", ["status", "sessions", "reload"])
def test_the_socket_of_the_unit_is_for_root(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Who may not look at it is told so, and not that there is none."""
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    monkeypatch.setattr(finding, "UNIT_SOCKET", str(private / "admin.sock"))
    monkeypatch.delenv("GATEWAY_ADMIN_ADDR", raising=False)
    assert sessions_command  # imported, as the others: who is nobody cannot
    assert commands.run([command]) == 2
    assert "there is no" in capfd.readouterr().err
    os.seteuid(65534)
    try:
        assert commands.run([command]) == (1 if command == "reload" else 4)
    finally:
        os.seteuid(0)
    assert f"unix:{private / 'admin.sock'}: Permission denied" in capfd.readouterr().err


@pytest.mark.parametrize("by_flag", [True, False])
def test_whoever_is_told_the_address_reads_no_config_file(
    double: AdminDouble, by_flag: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It may be one that only the gateway, or only root, may read."""
    monkeypatch.setenv("GATEWAY_CONFIG_FILE", str(tmp_path / "unreadable"))
    assert commands.run(["status"]) == 2
    if not by_flag:
        monkeypatch.setenv("GATEWAY_ADMIN_ADDR", double.address)
    assert commands.run(["status", *[f"--admin-addr={double.address}"] * by_flag]) == 0


@pytest.mark.parametrize(
    "content", ["bogus = 1\n", "workers = [1]\n", 'listen-addr = "x"\n', "workers = \n"]
)
def test_a_file_that_the_gateway_would_refuse_tells_its_address(
    double: AdminDouble, content: str, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The gateway goes on with what it had read, and its operator sees it and why it refused."""
    path = tmp_path / "gateway.toml"
    path.write_text(f'admin-addr = [\n  "{double.address}"\n]\n{content}')
    assert commands.run(["status", f"--config-file={path}"]) == 0
    out, err = capfd.readouterr()
    assert out.startswith("ready: ")
    assert ("unknown key" in err) == ("bogus" in content)
    assert ("expected TOML" in err) == content.endswith("= \n")
    assert commands.run(["sessions", "--json", f"--config-file={path}"]) in (0, 4)
    double.tell("reload failed")
    assert commands.run(["reload", f"--config-file={path}"]) == 1
    assert capfd.readouterr().err.splitlines()[-1].startswith("etcd-gateway: reload failed: ")


@pytest.mark.parametrize("content", ["admin-addr =", None])
def test_a_file_that_nobody_can_read_leaves_the_address_of_the_package(
    double: AdminDouble,
    content: str | None,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """As where a variable names the file, in an image: a broken edit makes nothing unhealthy."""
    path = tmp_path / "gateway.toml"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv("GATEWAY_DEFAULT_ADMIN_ADDR", double.address)
    assert commands.run(["status", f"--config-file={path}"]) == 2  # whoever names it means it
    monkeypatch.setenv("GATEWAY_CONFIG_FILE", str(path))
    capfd.readouterr()
    assert commands.run(["status"]) == 0
    (warning,) = capfd.readouterr().err.splitlines()
    assert warning.startswith("etcd-gateway: warning: GATEWAY_CONFIG_FILE ")
    assert warning.endswith(f"; asking at {double.address}")


def test_an_address_that_is_new_in_the_file_hides_no_gateway_at_that_of_the_package(
    double: AdminDouble, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A restart opens the new one; the unit's reload of what else is in the file needs none."""
    path = tmp_path / "gateway.toml"
    path.write_text(f'admin-addr = "127.0.0.1:{free_port()}"')
    monkeypatch.setenv("GATEWAY_CONFIG_FILE", str(path))
    assert commands.run(["status"]) == 4
    monkeypatch.setenv("GATEWAY_DEFAULT_ADMIN_ADDR", double.address)
    assert commands.run(["status"]) == 0
    assert finding.find_admin({"admin-addr": ("127.0.0.1:1",)}) == ("127.0.0.1:1",)


def test_reload_of_nobody_or_of_a_draining_gateway_fails(
    double: AdminDouble, capfd: pytest.CaptureFixture[str]
) -> None:
    """Exit 1 with the reason, at once."""
    assert reload_command.run([f"127.0.0.1:{free_port()}"]) == 1
    assert "no gateway answers" in capfd.readouterr().err
    double.tell("drain")
    wait_until(lambda: reload_command.run([double.address]) == 1)
    assert "draining" in capfd.readouterr().err.splitlines()[-1]


def test_reload_never_signals_another_program(
    double: AdminDouble, capfd: pytest.CaptureFixture[str]
) -> None:
    """The process must be a master on this host; SIGHUP ends most other programs."""
    double.tell("pid 1")
    wait_until(lambda: reload_command.run([double.address]) == 1)
    assert "process 1, which is no etcd-gateway master here" in capfd.readouterr().err


def test_a_reload_that_waits_for_the_start_says_so(
    double: AdminDouble, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may wait for a listen address that cannot be had; the reload follows."""
    monkeypatch.setattr(reload_command, "WAIT_S", 0.0)
    double.tell("starting")
    wait_until(lambda: admin_client.fetch_status([double.address])["state"] == "starting")
    assert reload_command.run([double.address]) == 1
    assert "still starting after 0 s, and reloads when that is over" in capfd.readouterr().err


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts, which needs root")
def test_reload_of_a_master_that_proc_hides(tmp_path: Path) -> None:
    """So it is for the commands of a unit with PrivateUsers= and ProtectProc=invisible."""
    with AdminDouble(f"unix:{tmp_path}/admin.sock", "127.0.0.1:0") as double:
        unix, tcp = double.addresses
        hidden = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh"]

        def reload(*addresses: str) -> tuple[int, str]:
            argv = [*hidden, *COMMAND, "reload", *(f"--admin-addr={each}" for each in addresses)]
            done = subprocess.run(argv, capture_output=True, text=True, env=environment())
            return done.returncode, done.stdout + done.stderr

        assert reload(tcp, unix) == (0, "reload complete\n")
        code, said = reload(tcp)
        assert code == 1
        assert "hidden from this command" in said
        double.tell("pid 1")
        wait_until(lambda: "hidden from this command" in reload(unix)[1])


def test_reload_never_signals_another_gateway(
    double: AdminDouble, capfd: pytest.CaptureFixture[str]
) -> None:
    """In containers each is process 1, and one of another host, or of our pod, may be asked."""
    before = admin_client.fetch_status([double.address])["reload"]["number"]
    from_elsewhere = "[::ffff:127.0.0.1]:" + double.address.rpartition(":")[2]
    assert reload_command.run([from_elsewhere]) == 1
    assert "the gateway runs on gw1.example.com, and process" in capfd.readouterr().err

    def tell_namespace(number: int) -> None:
        double.tell(f"namespace {number}")
        wait_until(lambda: admin_client.fetch_status([double.address])["pid_namespace"] == number)

    tell_namespace(1)
    assert reload_command.run([double.address]) == 1
    assert "of another container; run reload where" in capfd.readouterr().err
    tell_namespace(os.stat("/proc/self/ns/pid").st_ino)
    assert reload_command.run([double.address]) == 0
    assert admin_client.fetch_status([double.address])["reload"]["number"] == before + 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0s"), (59.4, "59s"), (61, "1m1s"), (3600, "1h0m"), (90061, "1d1h")],
)
def test_lengths_of_time_in_two_units(seconds: float, text: str) -> None:
    """As people say them."""
    assert lasting(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1024, "1.0 KiB"), (5e6, "4.8 MiB"), (2e15, "1819.0 TiB")],
)
def test_sizes_in_binary_units(count: float, text: str) -> None:
    """Three figures before the unit changes."""
    assert size(count) == text


def test_a_narrow_terminal_shows_what_matters_most(double: AdminDouble) -> None:
    """No figure is cut short at 80 columns; the rest is there where there is room."""
    double.tell(f"endpoint {NAMES[1]} inactive")
    double.tell(f"degrade {NAMES[0]} NOSPACE")
    double.tell(f"certificate {NAMES[0]} 9.5")
    double.tell(f"certificate {NAMES[2]} -1")
    document = admin_client.fetch_status([double.address])
    texts = {}
    for width in (80, 130):
        console = Console(width=width, file=io.StringIO())
        console.print(status_command.render(document, width))
        texts[width] = console.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in texts[80] + texts[130]
    assert all(name in texts[80] for name in ("SINCE", "LAST ERROR", "LAG", "HEARTBEAT"))
    for text in texts.values():
        assert all(word in text for word in ("CERTIFICATE", "9d1", "ended", "NOSPACE"))
    assert "3.5.1" in texts[130]
    assert "WEIGHT" not in texts[80]
    assert "WEIGHT" in texts[130]
