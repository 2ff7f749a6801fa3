"""The commands: ``start``, ``check``, ``status``, ``sessions``, ``reload``, and some small ones.

Each command imports its modules when it runs, because a start must not pay for the others.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from supervisor import __version__
from supervisor.cli import settings
from supervisor.cli.console import COMPLETE_VARIABLE, PROGRAM, report, warn_of_misspelled
from supervisor.cli.finding import FINDING_FLAGS, find_admin
from supervisor.cli.flag_options import FlagCommand, FlagOption
from supervisor.cli.mistakes import find_mistake
from supervisor.core.config_error import ConfigError, quote
from supervisor.core.exit_codes import EXIT_USAGE
from supervisor.core.flags import BY_NAME, FLAGS, FlagKind

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

SHELLS = ("bash", "zsh", "fish")
EXPECTED_SHELL = "expected bash, zsh or fish"

_CONTEXT: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

_EPILOG = """\
Every flag is an environment variable too: GATEWAY_ and its name in upper case with underscores
(GATEWAY_DISCOVERY_SRV), and a key of the config file: its name without the dashes in front. A flag
beats the variable, the variable beats the file. Durations are written as 300ms, 1m30s or 1.5h.
"""

HELP = {
    "program": (
        "The TCP gateway in front of an etcd cluster, or of any service found by SRV records."
    ),
    "start": "Run the gateway in the foreground until a signal stops it.",
    "check": """\
Check everything that start would need, dial every endpoint once, and start nothing.

Exits 0 if at least one endpoint can be dialed, 69 if none can, 1 if something else would keep
the gateway from starting (such as an address that cannot be bound), 2 on wrong usage.
""",
    "status": "Show the workers, endpoints and sessions of a running gateway.",
    "sessions": """\
List the open sessions of a running gateway, with who holds most of them.

A terminal shows as many as fit, a pipe gets a thousand. Run it as root to see the processes of
all clients on this host.
""",
    "reload": (
        "Make a running gateway reload; waits for the outcome and exits 0 if it worked, else 1."
    ),
    "demo": """\
Show the gateway at work, with nothing else installed.

On loopback: three small backends that say who they are, a DNS server with SRV records for them,
and a real gateway in front; prints what to try next.
""",
    "help": "Show the help of COMMAND, or of the program.",
    "version": "Print the version.",
    "completion": "Print the completion script for SHELL: bash, zsh or fish.",
}
"""What each command is for. These are no docstrings, because PYTHONOPTIMIZE=2 leaves those out."""


def run(arguments: Sequence[str]) -> int:
    """Run one command line; the exit code. Usage errors are reported here, as one line."""
    if COMPLETE_VARIABLE in os.environ:
        from supervisor.cli import completion as shells

        shells.install()
    elif mistake := find_mistake(arguments, _options_by_command()):
        report(mistake)
        return EXIT_USAGE
    elif not arguments:
        with program.make_context(PROGRAM, [], resilient_parsing=True) as context:
            click.echo(context.get_help(), err=True)
        return EXIT_USAGE
    try:
        code = program.main(
            list(arguments),
            prog_name=PROGRAM,
            complete_var=COMPLETE_VARIABLE,
            standalone_mode=False,
        )
    except click.Abort:
        raise KeyboardInterrupt from None
    except (click.ClickException, ConfigError) as error:
        report(_explain(error))
        return EXIT_USAGE
    return int(code or 0)


@click.group(context_settings=_CONTEXT, help=HELP["program"])
@click.version_option(__version__, prog_name=PROGRAM, message="%(prog)s %(version)s")
def program() -> None:
    """The program itself, without a command."""


def _start(**given: tuple[str, ...]) -> int:
    from supervisor.cli import start

    return start.run(_by_flag(given))


def _check(*, as_json: bool, explain: bool, **given: tuple[str, ...]) -> int:
    config = settings.load(_by_flag(given))
    warn_of_misspelled(config.misspelled)
    for error in config.wrong_but_overridden:
        report(f"warning: {error}; another source overrides it")
    from supervisor.cli import check as check_command

    return check_command.run(config, as_json=as_json, explain=explain)


def _status(*, as_json: bool, watch: bool, **given: tuple[str, ...]) -> int:
    admin_addrs = find_admin(_by_flag(given))
    from supervisor.cli import status as status_command

    return status_command.run(admin_addrs, as_json=as_json, watch=watch)


def _sessions(
    *,
    as_json: bool,
    watch: bool,
    endpoint: str | None,
    limit: str | None,
    sort: str | None,
    **given: tuple[str, ...],
) -> int:
    from supervisor.cli import sessions as sessions_command

    wish = sessions_command.read_wish(endpoint=endpoint, limit=limit, sort=sort)
    return sessions_command.run(find_admin(_by_flag(given)), wish, as_json=as_json, watch=watch)


def _reload(**given: tuple[str, ...]) -> int:
    admin_addrs = find_admin(_by_flag(given))
    from supervisor.cli import reload as reload_command

    return reload_command.run(admin_addrs)


@program.command("demo", help=HELP["demo"])
@click.option("--etcd", is_flag=True, help="Three real etcd members instead (needs etcd).")
@click.option("--once", is_flag=True, help="Leave after the tour; exits 1 if something failed.")
def _demo(etcd: bool, once: bool) -> int:
    from supervisor import demo

    return demo.run(etcd=etcd, once=once)


@program.command("help", hidden=True, help=HELP["help"])
@click.argument("command", required=False, type=click.UNPROCESSED)
def _show_help(command: str | None) -> int:
    return run([*([command] if command else []), "--help"])


@program.command("version", hidden=True, help=HELP["version"])
def _show_version() -> int:
    click.echo(f"{PROGRAM} {__version__}")
    return 0


def _completing(words: Sequence[str]) -> Callable[..., list[CompletionItem]]:
    """What click calls to complete a value that is one of these words."""

    def complete(_ctx: click.Context, _param: click.Parameter, begun: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        return [CompletionItem(word) for word in words if word.startswith(begun)]

    return complete


@program.command("completion", help=HELP["completion"])
@click.argument("shell", type=click.UNPROCESSED, shell_complete=_completing(SHELLS))
def _completion(shell: str) -> int:
    from click.shell_completion import get_completion_class

    from supervisor.cli import completion as shells

    shells.install()
    kind = get_completion_class(shell) if shell in SHELLS else None
    if kind is None:
        raise click.UsageError(f"SHELL {quote(shell)}: {EXPECTED_SHELL}")
    click.echo(kind(program, {}, PROGRAM, COMPLETE_VARIABLE).source())
    return 0


JSON = click.Option(["--json", "as_json"], is_flag=True, help="Print JSON.")
WATCH = click.Option(["--watch"], is_flag=True, help="Refresh in place until Ctrl-C.")
EXPLAIN = click.Option(
    ["--explain"], is_flag=True, help="Show every step from the names to the addresses."
)
WISHES = (
    click.Option(
        ["--endpoint"],
        type=click.UNPROCESSED,
        metavar="HOST:PORT",
        help="Only sessions of this endpoint.",
    ),
    click.Option(
        ["--limit"], type=click.UNPROCESSED, metavar="NUMBER", help="How many to list at most."
    ),
    click.Option(
        ["--sort"],
        type=click.UNPROCESSED,
        metavar="age|bytes",
        shell_complete=_completing(("age", "bytes")),
        help="The oldest first, or those first that moved most bytes.  [default: age]",
    ),
)


def _add_commands() -> None:
    every = [FlagOption(flag) for flag in FLAGS]
    finding = [FlagOption(BY_NAME[name], text) for name, text in FINDING_FLAGS.items()]
    for name, callback, params in (
        ("start", _start, every),
        ("check", _check, [JSON, EXPLAIN, *every]),
        ("status", _status, [JSON, WATCH, *finding]),
        ("sessions", _sessions, [JSON, WATCH, *WISHES, *finding]),
        ("reload", _reload, finding),
    ):
        command = FlagCommand(
            name,
            context_settings=_CONTEXT,
            callback=callback,
            params=[*params],
            help=HELP[name],
            short_help=HELP[name].partition(";")[0].partition(".")[0] + ".",
            epilog=_EPILOG if params[-1] is every[-1] else None,
        )
        program.add_command(command)


def _options_by_command() -> dict[str, dict[str, str]]:
    """The long options of each command, without dashes, with an example of the value if one has to
    be given; none for commands with other arguments."""
    return {
        name: {"help": ""}
        | {each.opts[0].removeprefix("--"): _example_of(each) for each in command.params}
        if isinstance(command, FlagCommand)
        else {}
        for name, command in program.commands.items()
    }


def _example_of(option: click.Parameter) -> str:
    """A value that the option may have; "" if it never takes the next argument."""
    if isinstance(option, FlagOption):
        flag = option.flag
        return "" if flag.kind is FlagKind.SWITCH else flag.default or flag.metavar
    is_switch = isinstance(option, click.Option) and option.is_flag
    return "" if is_switch else (option.metavar or "").partition("|")[0]


def _by_flag(given: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """What click collected, by the flags' own names."""
    return {name.replace("_", "-"): texts for name, texts in given.items() if texts}


def _explain(error: click.ClickException | ConfigError) -> str:
    """One printable line."""
    if isinstance(error, ConfigError):
        return str(error)
    if isinstance(error, click.MissingParameter):  # SHELL is the only one that can be missing
        return f"SHELL: a value is missing, {EXPECTED_SHELL}"
    return quote(error.format_message())[1:-1]


_add_commands()
