"""The man pages in ``deploy/man``, made from the table of flags and the commands."""

from __future__ import annotations

import re
import textwrap

import click

from supervisor.cli.commands import program
from supervisor.cli.flag_options import FlagOption
from supervisor.core.exit_codes import (
    EXIT_CRASH_LOOP,
    EXIT_DEGRADED,
    EXIT_FAILURE,
    EXIT_INTERRUPTED,
    EXIT_NO_ENDPOINT,
    EXIT_OK,
    EXIT_UNREACHABLE,
    EXIT_USAGE,
)
from supervisor.core.flags import FLAGS, Flag, FlagKind, Topic
from tests.samples import name_fixed

SUMMARY = "TCP gateway in front of an etcd cluster, or of any service found by SRV records"

EXIT_CODES = (
    (EXIT_OK, "start: stopped by a signal. Other commands: done."),
    (EXIT_FAILURE, "A failure at run time: an address cannot be bound, the reload failed."),
    (EXIT_USAGE, "Wrong usage: a flag, a variable or a key of the config file."),
    (
        EXIT_DEGRADED,
        "status: the gateway is degraded, starting or draining. sessions: the list is incomplete.",
    ),
    (EXIT_UNREACHABLE, "status, sessions: nothing answers at the admin address."),
    (
        EXIT_NO_ENDPOINT,
        "start: no endpoint was found, and waiting would not help. check: none can be dialed.",
    ),
    (EXIT_CRASH_LOOP, "Workers keep dying before they are ready."),
    (EXIT_INTERRUPTED, "Ended by Ctrl-C; start, demo and --watch end with one of the others."),
)

SIGNALS = (
    ("HUP", "Read the config file again and resolve every name again; sessions go on."),
    ("TERM, INT, QUIT", "Stop accepting, drain until --drain-timeout; a second one stops at once."),
    ("USR1", "Write the status to the log."),
    ("USR2", "Execute the program again, with the same pid; no client is refused."),
    ("TTIN, TTOU", "One worker more, one worker less."),
)

FILES = (
    ("/etc/etcd-gateway.toml", "The config file of the systemd unit: etcd-gateway.toml(5)."),
    ("/etc/default/etcd-gateway", "Variables for the systemd unit."),
    ("/etc/etcd-gateway/NAME.toml", "The config file of the unit etcd-gateway@NAME."),
    ("/etc/default/etcd-gateway-NAME", "Variables for the unit etcd-gateway@NAME."),
    ("/run/etcd-gateway/admin.sock", "The admin address of the systemd unit."),
    ("/run/etcd-gateway@NAME/admin.sock", "The admin address of the unit etcd-gateway@NAME."),
)

OPTIONS_OF = ".PP\nThe options of the following sections are those of start and check.\n"


def render_command() -> str:
    """``etcd-gateway.1``."""
    return _page(
        "etcd-gateway",
        1,
        SUMMARY,
        _section("SYNOPSIS", _synopsis()),
        _section("DESCRIPTION", _description()),
        _section("COMMANDS", "".join(_command(each) for each in _commands()) + OPTIONS_OF),
        *(_section(f"OPTIONS: {topic.value.upper()}", _flags(topic)) for topic in Topic),
        _section("VALUES", _values()),
        _section("SIGNALS", _list(SIGNALS)),
        _section("EXIT STATUS", _list((str(code), text) for code, text in EXIT_CODES)),
        _section("FILES", _list(FILES)),
        _section(
            "SEE ALSO", ".BR etcd-gateway.toml (5),\n.BR etcd (1),\n.BR systemd.service (5)\n"
        ),
    )


def render_config_file() -> str:
    """``etcd-gateway.toml.5``."""
    keys = "".join(
        f'.TP\n.BI {_text(flag.name)} " = " {_quoted(_value_kind(flag))}\n{_help(flag)}'
        for flag in FLAGS
        if flag.name != "config-file"
    )
    example = (
        'discovery-srv = "example.com"\n'
        'trusted-ca-file = "/etc/etcd/ca.pem"\n'
        'listen-addr = ["127.0.0.1:23790", "[::1]:23790"]\n'
        'drain-timeout = "1m"\naccess-log = true\nworkers = 4\n'
    )
    return _page(
        "etcd-gateway.toml",
        5,
        "config file of etcd-gateway",
        _section(
            "DESCRIPTION",
            _text(
                "A TOML file without tables. Each key is a flag of etcd-gateway(1) without the "
                "dashes in front, and an unknown key is an error. A flag on the command line and "
                "a GATEWAY_ variable beat the key. --config-file or GATEWAY_CONFIG_FILE names the "
                "file, SIGHUP has it read again; a file that cannot be used changes nothing. "
                f"SIGHUP does not change {name_fixed()}; a restart does."
            )
            + "\n.PP\n"
            + _text("Lists may be written as TOML lists or as one string with commas.")
            + "\n",
        ),
        _section("KEYS", keys),
        _section("EXAMPLE", f".nf\n{_text(example)}.fi\n"),
        _section("SEE ALSO", ".BR etcd-gateway (1)\n"),
    )


def _page(name: str, section: int, summary: str, *sections: str) -> str:
    # No date: the page changes with the flags and not with the day on which it is made.
    head = f'.TH {name.upper()} {section} "" etcd\\-gateway "User Commands"\n'
    if section != 1:
        head = head.replace("User Commands", "File Formats")
    return head + _section("NAME", f"{_text(name)} \\- {_text(summary)}\n") + "".join(sections)


def _section(title: str, content: str) -> str:
    return f".SH {_quoted(title)}\n{content}"


def _synopsis() -> str:
    return ".B etcd\\-gateway\n.I command\n.RI [ options ]\n"


def _description() -> str:
    return (
        _text(
            "etcd-gateway relays TCP connections to the members of an etcd cluster, or of any "
            "service that DNS SRV records describe. It uses one process per CPU, follows DNS "
            "while it runs, and hides members that fail from the clients that connect through "
            "it. It never reads what it relays: TLS passes through."
        )
        + '\n.PP\nIt takes the place of\n.BR "etcd gateway start" ,\n'
        + "with the same flags, defaults and listen address.\n"
    )


def _commands() -> list[click.Command]:
    return [each for _, each in sorted(program.commands.items()) if not each.hidden]


def _command(command: click.Command) -> str:
    arguments = [
        (each.metavar or each.name or "").upper()
        for each in command.params
        if isinstance(each, click.Argument)
    ]
    own = [
        (_title(each), each.help or "")
        for each in command.params
        if isinstance(each, click.Option) and not _is_in_table(each)
    ]
    title = " ".join([command.name or "", *arguments])
    text = " ".join((command.help or "").split())
    options = f".RS\n{_list(own)}.RE\n" if own else ""
    return f".TP\n.B {_text(title)}\n{_text(text)}\n{options}"


def _title(option: click.Option) -> str:
    return option.opts[0] if option.is_flag else f"{option.opts[0]}={option.metavar}"


def _is_in_table(option: click.Option) -> bool:
    """Whether the table of flags says what the option is for."""
    return isinstance(option, FlagOption) and option.help == option.flag.help


def _flags(topic: Topic) -> str:
    return "".join(_flag(flag) for flag in FLAGS if flag.topic is topic)


def _flag(flag: Flag) -> str:
    name = _text(f"--{flag.name}")
    value = "" if flag.kind is FlagKind.SWITCH else f'=" {_quoted(flag.metavar)}'
    title = f'.BI "{name}{value}' if value else f".B {name}"
    return f".TP\n{title}\n{_help(flag)}"


def _help(flag: Flag) -> str:
    shown = f" The default is {flag.default}." if flag.default not in ("", "false") else ""
    return f"{_text(flag.help + shown)}\n"


def _value_kind(flag: Flag) -> str:
    return "true|false" if flag.kind is FlagKind.SWITCH else flag.metavar


def _values() -> str:
    return (
        _text(
            "Each flag takes its value from the command line, else from its variable, GATEWAY_ "
            "and its name in upper case with underscores (GATEWAY_DIAL_TIMEOUT), else from the "
            "config file, else from the same variable with GATEWAY_DEFAULT_ in front, which is "
            "for units and images, else from its default. Durations are written as 300ms, 1m30s "
            "or 1.5h. Lists are separated by commas, and their flags may be repeated. Booleans "
            "take a value only after an equals sign: --access-log=false."
        )
        + "\n"
    )


def _list(items: object) -> str:
    return "".join(f".TP\n.B {_text(name)}\n{_text(text)}\n" for name, text in items)  # type: ignore[attr-defined]


def _quoted(text: str) -> str:
    return '"' + _text(text).replace('"', '""') + '"'


def _text(text: str) -> str:
    """Plain text as roff: no character of it commands anything."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("…", "...")
    lines = [
        line
        for each in escaped.split("\n")
        for line in (
            textwrap.wrap(each, 78, break_on_hyphens=False, break_long_words=False) or [""]
        )
    ]
    return "\n".join(re.sub(r"^(?=[.'])", r"\\&", line) for line in lines)
