"""The command line: what is taken, what is refused, and that it takes one line to say so."""

from __future__ import annotations

import os
import pty
import select
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor import __version__
from supervisor.cli import settings as config_settings
from supervisor.cli.commands import program
from supervisor.cli.finding import UNIT_SOCKET
from supervisor.cli.flag_options import FlagCommand, FlagOption, spell_out_switches
from supervisor.cli.main import main
from supervisor.core.config_error import ConfigError
from supervisor.core.flags import FLAGS, FlagKind
from tests.support import wait_until

COMMAND = Path(sys.executable).with_name("etcd-gateway")


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("GATEWAY_")]:
        monkeypatch.delenv(name)


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """The installed command, to its end."""
    return subprocess.run(
        [COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **environ},
    )


def refuse(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run in this process, expect a usage error; its line."""
    assert main(arguments) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("etcd-gateway: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1
    return err.removeprefix("etcd-gateway: ").rstrip("\n")


# -- usage errors --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["start", "--endpoints=a"], '--endpoints "a": the port is missing, expected host:port'),
        (["start", "--endpoints", "a"], '--endpoints "a": the port is missing'),
        (["check", "--retry-delay=0"], '--retry-delay "0": expected at least 10ms'),
        (["check", "--json", "--workers=x"], '--workers "x": expected a whole number'),
        (["start", "--acess-log"], "--acess-log: no such flag, did you mean --access-log?"),
        (["start", "-x"], "-x: no such flag, see etcd-gateway start --help"),
        (["start", "--retry-delay"], "--retry-delay: a value is missing, as in --retry-delay=1m0s"),
        (["start", "extra"], '"extra": a value without a flag'),
        (["start", "--listen-addr=:1", "--"], '"--": no such flag, expected two dashes and a name'),
        (["start", "--listen-addr=:1", "-"], '"-": no such flag, expected two dashes and a name'),
        (["start", "---workers=2"], '"---workers=2": no such flag, did you mean --workers=2?'),
        (["start", "-f", "a.cfg"], "-f: no such flag, did you mean --config-file=FILE?"),
        (["status", "-c", "a.cfg"], "-c: no such flag, did you mean --config-file=FILE?"),
        (["check", "a.toml"], '"a.toml": a value without a flag, did you mean --config-file=a.tom'),
        (["completion", "a.toml"], 'SHELL "a.toml": expected bash'),
        (
            ["start", "--access-log", "false"],
            "after an equals sign: did you mean --access-log=fals",
        ),
        (["start", "--access-log=maybe"], '--access-log "maybe": expected true or false'),
        (["start", "--log-level", "--access-log"], "--log-level: a value is missing, as in --log"),
        (["sart"], '"sart": no such command, did you mean etcd-gateway start?'),
        (["st\nart\x1b[2J"], '"st\\nart\\x1b[2J": no such command'),
        (["start", "--listen-addr=\n\x1b\udcff:1"], '--listen-addr "\\x1b'),
        (["status"], "--admin-addr is not set and there is no"),
        (["reload", "--admin-addr="], "--admin-addr is not set"),
        (["status", "--admin-addr=x"], '--admin-addr "x": the port is missing'),
        (["sessions", "--limit"], "--limit: a value is missing, as in --limit=NUMBER"),
        (["sessions", "--json", "--sort"], "--sort: a value is missing, as in --sort=age"),
        (["sessions", "--limit", "--json"], "--limit: a value is missing, as in --limit=NUMBER"),
        (["start", "--config-file='a.toml'"], "expected it without the quotes"),
        (["check", '--trusted-ca-file="ca.pem"'], "expected it without the quotes"),
        (["check", "--host-seed", "--json"], "--host-seed: a value is missing"),
        (["check", "--endpoints", "-h"], "--endpoints: a value is missing"),
        (["start", "--log-level", "--json"], '--log-level "--json": expected debug'),
        (["sessions", "--limit", "-1"], '--limit "-1": expected a number of sessions, 1 or more'),
        (["sessions", "--watch", "5"], '"5": a value without a flag, expected flags'),
        (["completion"], "SHELL: a value is missing, expected bash, zsh or fish"),
        (["completion", "tcsh"], 'SHELL "tcsh": expected bash, zsh or fish'),
        (["--frobnicate"], "No such option"),
    ],
)
def test_usage_errors(capfd: pytest.CaptureFixture[str], arguments: list[str], line: str) -> None:
    """Wrong usage is one line on standard error and exit code 2."""
    assert line in refuse(capfd, *arguments)


def test_every_value_may_follow_behind_a_blank(capfd: pytest.CaptureFixture[str]) -> None:
    """An option of a command is written as the help shows it, whether it is a flag or not."""
    for name, command in program.commands.items():
        for option in command.params if isinstance(command, FlagCommand) else ():
            switch = isinstance(option, FlagOption) and option.flag.kind is FlagKind.SWITCH
            if switch or (isinstance(option, click.Option) and option.is_flag):
                continue
            refusal = refuse(capfd, name, option.opts[0], "\n", f"{option.opts[0]}=\n", "-x")
            assert refusal.startswith("-x: no such flag"), (name, option.opts)


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("--endpoints=a:1", "did you mean etcd-gateway start --endpoints=a:1?"),
        ("--endpoint a:1", "did you mean etcd-gateway start --endpoints a:1?"),
        ("-endpoints=a:1", "did you mean etcd-gateway start --endpoints=a:1?"),
        ("--admin-addr :1 sessions --json", "mean etcd-gateway sessions --admin-addr :1 --json?"),
        ("--json status", "the command comes first, did you mean etcd-gateway status --json?"),
        ("start -endpoints=a:1", "did you mean --endpoints=a:1?"),
        ("start --listen_addr=:1", "did you mean --listen-addr=:1?"),
        ("start --config=x.toml", "did you mean --config-file=x.toml?"),
        ("gateway start --workers=2", "did you mean etcd-gateway start --workers=2?"),
        ("START", "did you mean etcd-gateway start?"),
        ("stop", "stop the gateway with SIGTERM or the service manager"),
        ("frobnicate", "expected one of check, completion, demo, reload"),
        ("-v", "did you mean etcd-gateway --version?"),
        ("start --access-log yes", "did you mean --access-log=true?"),
        ("start --access-log=yes", "did you mean true?"),
        ("check --endpoints 'a:1 b:2'", "expected commas between the values, as in a:1,b:2"),
        ("check --endpoints 'a:1; b:2'", "expected commas between the values, as in a:1,b:2"),
        ("check --endpoints 'a:1;b:2;'", "expected commas between the values, as in a:1,b:2"),
        ("check --endpoints a:1 b:2", "the values of --endpoints are separated by commas"),
        ("check 10.0.0.1:2379", "did you mean --endpoints=10.0.0.1:2379?"),
        ("sessions 10.0.0.1:2379", "did you mean --endpoint=10.0.0.1:2379?"),
        ("start endpoints=10.0.0.1:2379", "did you mean --endpoints=10.0.0.1:2379?"),
        ("check --endpoints=h:2379:2379", "with one port, did you mean h:2379?"),
        ("check --endpoints=h:2379:2380", "expected host:port, with one port"),
        ("check --endpoints=https://h:2379/foo", "a path has no meaning here"),
        ("check --endpoints=https://h:2379/foo", "did you mean https://h:2379?"),
        ("check --endpoints=https://h/foo", "a path has no meaning here, expected host:port"),
        ("check --endpoints=2379", "the host is missing, expected host:port, did you mean 127.0"),
        ("check --endpoints=fd00::1:2379", "did you mean [fd00::1]:2379?"),
        ("start --listen-addr=23790", "did you mean 127.0.0.1:23790 or :23790 (all interfaces)?"),
        ("start --admin-addr=9379", "did you mean 127.0.0.1:9379 or :9379"),
        ("start --listen-addr=*:23790", "expected host:port or :port, did you mean :23790?"),
        ("start --admin-addr=*:9379", "did you mean :9379?"),
        ("start --listen-addr=*:http", "expected host:port or :port"),
        ("start --listen-addr=/run/gw.sock", "did you mean unix:/run/gw.sock?"),
        ("start --admin-addr=/run/gw.sock", "did you mean unix:/run/gw.sock?"),
        ("status --admin-addr=/run/gw.sock", "did you mean unix:/run/gw.sock?"),
        ("check --endpoints=/run/etcd.sock", "did you mean unix:/run/etcd.sock?"),
        ("check --endpoints=/", "as unix:/run/name.sock"),
        ("check --endpoints=unix:/run/x,mode=0600", "only a listen address has options"),
        ("start --admin-addr=unix:/run/x,mode=0600", "only a listen address has options"),
        ("start --admin-addr=example.com:80", "expected an IP address of this host, localhost, or"),
        ("start --log-level=warning", "did you mean warn?"),
        ("start --log-level=INFO", "did you mean info?"),
        ("start --log-level=x", "expected debug, info, warn or error"),
        ("start --balance=leastconn", "did you mean least-sessions?"),
        ("start --on-inactive=off", "expected keep or close"),
        ("start --dial-timeout=5", "did you mean 5s?"),
        ("start --dial-timeout='5 s'", "did you mean 5s?"),
        ("start --dial-timeout=5sec", "did you mean 5s?"),
        ("start --drain-timeout='1.5 Minutes'", "did you mean 1.5m?"),
        ("start --worker-max-age=7d", "did you mean 168h?"),
        ("start --dial-timeout=5parsec", "expected a duration such as 300ms, 1m30s or 1.5h"),
        ("start --discovery-srv=https://example.com", "did you mean example.com?"),
        ("start --discovery-srv=example.com:2379", "did you mean example.com?"),
        ("start --discovery-srv=https://10.0.0.1:2379", "IP addresses go to --endpoints"),
        ("start --discovery-srv=https://", "expected a host name of letters"),
        ("status --endpoints=a:1", "no such flag of status; it is one of start and check"),
        ("status --wach", "did you mean --watch?"),
    ],
)
def test_mistakes_are_answered_with_what_was_meant(
    capfd: pytest.CaptureFixture[str], line: str, answer: str
) -> None:
    """What people type by habit of other programs is answered with the right spelling."""
    assert answer in refuse(capfd, *shlex.split(line))


@pytest.mark.parametrize("arguments", [["help"], ["help", "start"]])
def test_help_is_given_where_it_is_asked_for(
    capfd: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    """The word help works as the option does."""
    assert main(arguments) == 0
    assert "Usage: etcd-gateway" in capfd.readouterr().out


def test_the_word_version(capfd: pytest.CaptureFixture[str]) -> None:
    """The word version prints what the option prints."""
    assert main(["version"]) == 0
    assert capfd.readouterr().out == f"etcd-gateway {__version__}\n"


def test_a_suggested_line_is_cut(capfd: pytest.CaptureFixture[str]) -> None:
    """A long command line is not repeated as a whole."""
    said = refuse(capfd, "gateway", "start", *(f"--endpoints=a:{i}" for i in range(1, 99)))
    assert said.endswith("--endpoints=a:3 ...?")


def test_no_command(capfd: pytest.CaptureFixture[str]) -> None:
    """Without a command there is help, on standard error, and exit code 2."""
    assert main([]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert "start" in err


_ARGUMENTS = st.lists(
    st.sampled_from([f"--{flag.name}" for flag in FLAGS] + ["--", "-", "=", ",", ""])
    | st.builds("--{}={}".format, st.sampled_from([f.name for f in FLAGS]), st.text(max_size=9))
    | st.text(st.characters(exclude_characters="\0"), max_size=9),
    max_size=6,
)


@pytest.mark.slow
@given(_ARGUMENTS)
@settings(max_examples=200, deadline=None)
def test_any_command_line_ends_in_one_line_or_help(arguments: list[str]) -> None:
    """No command line raises; what is refused is refused with exit code 2 (status never starts)."""
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        # "status" without an admin address is refused for that, if for nothing else.
        assert main(["status", "--admin-addr=", *arguments, "--admin-addr=x"]) in (0, 2)
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


# -- booleans as Go has them ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_arguments", "spelled"),
    [
        (["--access-log"], ["--access-log=true"]),
        (["--access-log=false"], ["--access-log=false"]),
        (["--access-log", "x"], ["--access-log=true", "x"]),
        (["--log-level", "--access-log"], ["--log-level", "--access-log"]),
        (["--log-level=info", "--access-log"], ["--log-level=info", "--access-log=true"]),
        (["--", "--access-log"], ["--", "--access-log"]),
        (["--log-level"], ["--log-level"]),
        (["--json", "--handover"], ["--json", "--handover=true"]),
        ([], []),
    ],
)
def test_switches(given_arguments: list[str], spelled: list[str]) -> None:
    """A boolean never takes the next argument; a value that looks like one stays a value."""
    assert spell_out_switches(given_arguments) == spelled


# -- the config file -----------------------------------------------------------------------------


def test_a_config_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file that a flag or the variable names is read; the command line beats it."""
    path = tmp_path / "g.toml"
    path.write_text('workers = 3\nendpoints = ["a:1"]\nlog-level = "debug"\n')
    monkeypatch.setenv("GATEWAY_CONFIG_FILE", str(path))
    config = config_settings.load({"workers": ["5"]})
    assert (config.workers, config.log_level) == (5, "debug")
    assert config.endpoints_given
    assert config.config_file == str(path)


def test_a_config_file_with_a_byte_order_mark(tmp_path: Path) -> None:
    """Some editors write one; it is no part of the first key."""
    path = tmp_path / "g.toml"
    path.write_bytes(b"\xef\xbb\xbfworkers = 3\n")
    assert config_settings.load({"config-file": [str(path)]}).workers == 3


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"workers 3", "expected TOML: "),
        (b"workers = 3\nworkers = 4", "expected TOML: "),
        (b"\xff", "expected UTF-8, not so at byte 0"),
        (b"a = " + b"[" * 100_000, "expected lists and tables that are nested less deeply"),
        (b"workers = " + b"9" * 6000, "expected numbers of at most 4300 digits"),
        (b"workers = 0x" + b"f" * 6000, "expected numbers of at most 4300 digits"),
        (b"a." * 50_000 + b"a = 1", "expected no key of hundreds of parts"),
        (b"#" * 5_000_000, "expected at most"),
        (b"wrkers = 3", "g.toml: unknown key"),
        (b"workers = 1979-05-27", "expected one value"),
    ],
)
def test_unusable_config_files(tmp_path: Path, content: bytes, reason: str) -> None:
    """A file that is no configuration is refused with the reason."""
    path = tmp_path / "g.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        config_settings.load({"config-file": [str(path)]})
    assert reason in str(caught.value)
    assert str(caught.value).isprintable()


def test_config_files_that_are_none(tmp_path: Path) -> None:
    """A directory, a device, a pipe nobody writes to, a missing file: refused, and no waiting."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path, reason in (
        (tmp_path, "it is a directory"),
        (Path("/dev/zero"), "regular file"),
        (fifo, "regular file"),
        (tmp_path / "none", "No such file"),
        (tmp_path / ("x" * 300), "File name too long"),
    ):
        with pytest.raises(ConfigError, match=f"^--config-file .*{reason}"):
            config_settings.load({"config-file": [str(path)]})


def test_certificates_are_checked_at_once(tmp_path: Path) -> None:
    """A CA file or a key that no handshake could use is refused at the start."""
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    cases = {
        "certificates in PEM": {"trusted-ca-file": [str(junk)]},
        "No such file": {"trusted-ca-file": [str(tmp_path / "none")]},
        "unencrypted PEM key": {"health-cert-file": [str(junk)], "health-key-file": [str(junk)]},
    }
    for reason, flags in cases.items():
        with pytest.raises(ConfigError, match=reason):
            config_settings.load(flags)


def test_errors_of_files_name_their_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that cannot be read is named with the flag, the variable, or the key that named it."""
    gone = str(tmp_path / "gone.pem")
    path = tmp_path / "g.toml"
    path.write_text(f'trusted-ca-file = "{gone}"\n')
    with pytest.raises(ConfigError, match=r"^trusted-ca-file in .*g\.toml "):
        config_settings.load({"config-file": [str(path)]})
    monkeypatch.setenv("GATEWAY_TRUSTED_CA_FILE", gone)
    with pytest.raises(ConfigError, match=r"^GATEWAY_TRUSTED_CA_FILE "):
        config_settings.load({"config-file": [str(path)]})


# -- the installed command -----------------------------------------------------------------------


def test_version_and_help() -> None:
    """Version and help go to standard output; help names every flag."""
    assert run("--version").stdout.startswith("etcd-gateway ")
    shown = run("start", "--help")
    assert shown.returncode == 0
    assert all(f"--{flag.name}" in shown.stdout for flag in FLAGS)
    assert "..." not in run("--help").stdout.partition("Commands:")[2], "a line on one is cut"


@pytest.mark.parametrize("command", ["status", "sessions", "reload"])
def test_help_of_commands_that_ask(capfd: pytest.CaptureFixture[str], command: str) -> None:
    """A command that asks a running gateway says whom, and where without a flag."""
    assert main([command, "--help"]) == 0
    said = "".join(capfd.readouterr().out.split())  # lines end within words that have a dash
    assert "Askthegatewaythatservesoneofthese" in said
    assert UNIT_SOCKET in said
    assert "Servethestatuspage" not in said


def test_variables_of_the_interpreter_change_nothing() -> None:
    """It neither asks for input at the end, nor leaves out the help texts."""
    odd = {"PYTHONINSPECT": "1", "PYTHONOPTIMIZE": "2"}
    for arguments in (["--help"], ["check", "--help"], ["start", "--workers=x"], ["frobnicate"]):
        usual, shown = run(*arguments), run(*arguments, **odd)
        assert (shown.stdout, shown.stderr) == (usual.stdout, usual.stderr)
        assert shown.returncode == usual.returncode


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    """There is a script for each shell."""
    shown = run("completion", shell)
    assert shown.returncode == 0
    assert "_ETCD_GATEWAY_COMPLETE" in shown.stdout
    assert "%(" not in shown.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("etcd-gateway st", "start"),
        ("etcd-gateway start --access", "--access-log"),
        ("etcd-gateway start --balance l", "least-sessions"),
        ("etcd-gateway start --balance = l", "least-sessions"),  # as bash cuts --balance=l
        ("etcd-gateway start --workers = 4 --balance = l", "least-sessions"),
        ("etcd-gateway start --listen-addr =: 23790 --acc", "--access-log"),
        ("etcd-gateway status --wa", "--watch"),
        ("etcd-gateway completion z", "zsh"),
    ],
)
def test_completion(words: str, expected: str) -> None:
    """Commands, flags and choices are completed."""
    shown = run(
        _ETCD_GATEWAY_COMPLETE="bash_complete",
        COMP_WORDS=words,
        COMP_CWORD=str(len(words.split()) - 1),
    )
    assert expected in shown.stdout.replace(",", "\n").split()


PATH = f"{COMMAND.parent}:{os.environ['PATH']}"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("fish") is None, reason="needs fish")
@pytest.mark.parametrize(
    ("line", "candidates"),
    [
        ("start --balance=l", ["--balance=least-sessions"]),
        ("start --balance l", ["least-sessions"]),
        ("start --access-log=", ["--access-log=true", "--access-log=false"]),
        ("start --config-file=/etc/passw", ["--config-file=/etc/passwd"]),
        ("start --log-fo", ["--log-format\tauto: console on a terminal, else json."]),
    ],
)
def test_completion_in_fish(line: str, candidates: list[str]) -> None:
    """fish offers whole candidates, with the whole description."""
    source = f"{shlex.quote(str(COMMAND))} completion fish | source"
    shown = subprocess.run(
        ["fish", "-c", f'{source}; complete -C "etcd-gateway {line}"'],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PATH": PATH},
    )
    assert set(candidates) <= set(shown.stdout.splitlines())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("start --balance=l", "start --balance=least-sessions"),
        ("start --balance l", "start --balance least-sessions"),
        ("start --config-file=/etc/passw", "start --config-file=/etc/passwd"),
        ("start --balan", "start --balance"),
    ],
)
def test_completion_in_zsh(tmp_path: Path, typed: str, completed: str) -> None:
    """zsh keeps the flag in front of the equals sign when it completes the value."""
    line = tmp_path / "line"
    pid, fd = pty.fork()
    if pid == 0:
        os.environ["PATH"] = PATH
        os.environ["TERM"] = "dumb"
        os.execvp("zsh", ["zsh", "-f", "-i"])
    seen = bytearray()

    def wait_for(text: bytes) -> None:
        wait_until(lambda: text in _drain(fd, seen), 30, f"{text!r}")

    try:
        os.write(fd, b"bindkey -e; autoload -Uz compinit; compinit -u -D\n")
        os.write(fd, b"source <(etcd-gateway completion zsh); print RE''ADY\n")
        wait_for(b"READY")
        os.write(fd, b"etcd-gateway %s\t" % typed.encode())
        wait_for(completed[-4:].encode())
        # To the begin of the line: have it printed instead of run.
        os.write(fd, b"\x01print > %s \n" % os.fsencode(line))
        wait_until(lambda: _drain(fd, seen) and line.exists() and line.read_text(), 30)
        assert line.read_text() == f"etcd-gateway {completed}\n"
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(fd)


def _drain(fd: int, into: bytearray) -> bytearray:
    """Read what there is, and return everything read so far."""
    while select.select([fd], [], [], 0)[0]:
        into += os.read(fd, 4096)
    return into


@pytest.mark.parametrize("name", ["supervisor", "gateway"])
def test_somebody_elses_package(tmp_path: Path, name: str) -> None:
    """A foreign package in front of ours is named, instead of a traceback or worse."""
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("raise SystemError('not to be imported')\n")
    shown = run("--version", PYTHONPATH=str(tmp_path))
    assert shown.returncode == 1
    assert shown.stderr == (
        f"etcd-gateway: the package {name} in {tmp_path / name} is not etcd-gateway's; "
        "install etcd-gateway into an environment of its own\n"
    )


def test_the_process_manager_in_the_same_folder(tmp_path: Path) -> None:
    """PyPI's supervisor, which installs itself over ours, is noticed."""
    (tmp_path / "supervisor").mkdir()
    for part in ("__init__.py", "master.py", "supervisord.py"):
        (tmp_path / "supervisor" / part).touch()
    shown = run("--version", PYTHONPATH=str(tmp_path))
    assert shown.returncode == 1
    assert "is mixed with the process manager's" in shown.stderr


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_closed_streams(closed: str) -> None:
    """A stream that is closed changes nothing about the exit code."""
    for arguments, code in (("--version", 0), ("start --endpoints=x", 2)):
        shown = subprocess.run(
            f"exec {shlex.quote(str(COMMAND))} {arguments} {closed}",
            shell=True,
            capture_output=True,
            timeout=60,
        )
        assert shown.returncode == code
        assert b"Traceback" not in shown.stderr


def test_the_module_is_the_command() -> None:
    """``python -m etcd_gateway`` does the same, where no folder of commands is on the path."""
    for arguments, code in ((["--version"], 0), (["start", "--endpoints=x"], 2)):
        module = subprocess.run(
            [sys.executable, "-m", "etcd_gateway", *arguments],
            capture_output=True,
            text=True,
            timeout=60,
        )
        command = run(*arguments)
        assert module.returncode == command.returncode == code
        assert (module.stdout, module.stderr) == (command.stdout, command.stderr)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_that_lacks_a_character(encoding: str) -> None:
    """A name that the output's encoding has no characters for is written with escapes."""
    path = f"unix:/nowhere/\u0394{os.getpid()}"
    shown = subprocess.run(
        [COMMAND, "check", f"--endpoints={path}", "--listen-addr=unix:@\u0394"],
        capture_output=True,
        timeout=60,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )
    assert (shown.returncode, b"unexpected" in shown.stderr) == (69, False), shown.stderr
    assert path.encode(encoding, "backslashreplace") in shown.stdout


def test_a_reader_that_left() -> None:
    """Help into a pipe whose reader left is no traceback."""
    pipe_r, pipe_w = os.pipe()
    os.close(pipe_r)
    shown = subprocess.run(
        [COMMAND, "start", "--help"], stdout=pipe_w, stderr=subprocess.PIPE, timeout=60
    )
    os.close(pipe_w)
    assert (shown.returncode, shown.stderr) == (1, b"")


def test_a_full_disk() -> None:
    """Help that cannot be written is one line and exit code 1."""
    with Path("/dev/full").open("w") as full:
        shown = subprocess.run(
            [COMMAND, "start", "--help"], stdout=full, stderr=subprocess.PIPE, timeout=60
        )
    said = b"etcd-gateway: the output could not be written: No space left on device\n"
    assert (shown.returncode, shown.stderr) == (1, said)


def test_a_library_that_cannot_be_loaded(tmp_path: Path) -> None:
    """As from a damaged file, or from a host with another C library."""
    (tmp_path / "click.py").write_text("raise ImportError('libz.so: file too short')\n")
    shown = subprocess.run(
        [COMMAND, "status"],
        stderr=subprocess.PIPE,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    said = b"cannot be imported: libz.so: file too short; install etcd-gateway again\n"
    assert (shown.returncode, shown.stderr) == (1, b"etcd-gateway: " + said)


def test_an_unexpected_error_when_debugging() -> None:
    """With the log level debug the traceback follows the line, from flag or variable."""
    for arguments, environ in (
        (["--version"], {"GATEWAY_LOG_LEVEL": "debug"}),
        (["start", "--log-level=debug", "--help"], {}),
        (["start", "--log-level", "debug", "--help"], {}),
    ):
        with Path("/dev/null").open() as read_only:
            shown = subprocess.run(
                [COMMAND, *arguments],
                stdout=read_only,
                stderr=subprocess.PIPE,
                timeout=60,
                env={**os.environ, **environ},
            )
        first, second, *_ = shown.stderr.splitlines()
        assert first.startswith(b"etcd-gateway: unexpected OSError: ")
        assert second.startswith(b"Traceback")


@pytest.mark.slow
def test_help_fits_a_terminal() -> None:
    """No line of any help is wider than 80 columns, and each command has one."""
    for command in ("start", "check", "status", "sessions", "reload", "demo", "completion"):
        shown = run(command, "-h", COLUMNS="80")
        assert shown.returncode == 0
        assert max(len(line) for line in shown.stdout.splitlines()) <= 80
