"""Mistakes on the command line that can be told before it is parsed, and what was probably meant.

click would refuse most of these lines too, but in words of its own and without knowing the flags.
"""

from __future__ import annotations

import re
import shlex
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence

from gateway.core.records import dataclass
from supervisor.cli.console import PROGRAM
from supervisor.core.config_error import quote
from supervisor.core.flags import BY_NAME, FlagKind
from supervisor.core.spelling import nearest

STANDARD = {
    **dict.fromkeys(("-help", "-?"), "--help"),
    **dict.fromkeys(("-v", "-V", "-version"), "--version"),
}
"""Spellings that other programs have for the options of the program itself."""

ELSEWHERE = {
    "stop": "stop the gateway with SIGTERM or the service manager",
    "restart": "restart the gateway with the service manager, or upgrade it in place with SIGUSR2",
    "upgrade": "send SIGUSR2 to the master",
    "run": f"did you mean {PROGRAM} start?",
    "config": f"did you mean {PROGRAM} check?",
    "health": f"did you mean {PROGRAM} status?",
}
"""Commands that other programs have, and what to do instead."""

SHORT = {"f": "config-file", "c": "config-file"}
"""Single letters that HAProxy, nginx and Envoy have, and our flags for them."""

MAX_SHOWN_ARGUMENTS = 4
"""Arguments of a suggested command line; the rest becomes three dots."""


Options = Mapping[str, str]
"""The long options of a command, without dashes, each with an example of its value; "" for one that
never takes the next argument."""


def find_mistake(arguments: Sequence[str], options: Mapping[str, Options]) -> str:
    """One line that names what is wrong and what was probably meant, or "" if nothing is.

    ``options`` has those of each command. Commands whose arguments are not flags of the table have
    none and are not looked into.
    """
    if not arguments:
        return ""
    first, rest = arguments[0], arguments[1:]
    if first.startswith("-"):
        return _before_the_command(first, rest, options)
    if first == "gateway" and rest:
        return f"gateway is part of the program's name: did you mean {_line(rest)}?"
    if first not in options:
        return _unknown_command(first, rest, options)
    return _in_the_command(first, rest, options[first]) if options[first] else ""


def _before_the_command(
    first: str, rest: Sequence[str], options: Mapping[str, Collection[str]]
) -> str:
    if first in STANDARD:
        return f"{first}: no such flag, did you mean {PROGRAM} {STANDARD[first]}?"
    if first in ("-h", "--help", "--version"):
        return ""
    name = first.lstrip("-").partition("=")[0]
    flag = name if name in BY_NAME else nearest(name, BY_NAME)
    written = "--" + first.replace(name, flag or name, 1).lstrip("-")
    if command := next((each for each in rest if (flag or name) in options.get(each, ())), ""):
        at = rest.index(command)
        line = _line([command, written, *rest[:at], *rest[at + 1 :]])
        return f"{quote(first)[1:-1]}: the command comes first, did you mean {line}?"
    if not flag:
        return ""
    return (
        f"{quote(first)[1:-1]}: the command is missing in front of the flags, "
        f"did you mean {_line(['start', written, *rest])}?"
    )


def _unknown_command(first: str, rest: Sequence[str], known: Collection[str]) -> str:
    said = f"{quote(first)}: no such command"
    if first in ELSEWHERE:
        return f"{said}; {ELSEWHERE[first]}"
    if meant := nearest(first.lower(), known):
        return f"{said}, did you mean {_line([meant, *rest])}?"
    visible = sorted(name for name in known if name not in ("help", "version"))
    return f"{said}, expected one of {', '.join(visible)}"


def _in_the_command(command: str, arguments: Sequence[str], options: Options) -> str:
    previous = ""
    for each in _read(arguments, options):
        if each.option and each.dashes == 1:
            return _unknown_option(command, each, options)
        if each.option and each.option not in options:
            return _unknown_option(command, each, options)
        if not each.option:
            return _extra_argument(each.text, previous, options)
        if each.value is None:
            example = options[each.option]
            return f"{each.text}: a value is missing, as in {each.text}={example}"
        previous = each.option
    return ""


@dataclass(frozen=True, slots=True)
class _Argument:
    """One argument: ``option`` is its name without dashes, or "" if it is not an option.

    ``value`` is the next argument of a flag that needs one; None if there is none, or if that is an
    option itself: no value is spelled like one, and who means one writes it behind ``=``.
    """

    text: str
    option: str = ""
    dashes: int = 2
    value: str | None = ""


def _read(arguments: Sequence[str], options: Options) -> Iterator[_Argument]:
    """The options with their values, and the arguments that belong to none."""
    rest = deque(arguments)
    while rest:
        text = rest.popleft()
        dashes = len(text) - len(text.lstrip("-"))
        name, equals, _ = text.lstrip("-").partition("=")
        if not 1 <= dashes <= 2 or text == "--" or not name:
            yield _Argument(text)
            continue
        if text == "-h":
            name = "help"
            dashes = 2
        if dashes == 2 and options.get(name) and not equals:
            missing = not rest or _is_option(rest[0], options)
            yield _Argument(text, name, dashes, value=None if missing else rest.popleft())
        else:
            yield _Argument(text, name, dashes)


def _is_option(text: str, options: Options) -> bool:
    """Whether an argument is an option of the command, and so no value of the one in front."""
    return text == "-h" or (text.startswith("--") and text[2:].partition("=")[0] in options)


def _unknown_option(command: str, each: _Argument, options: Options) -> str:
    said = f"{quote(each.text.partition('=')[0])[1:-1]}: no such flag"
    name = each.option.lower().replace("_", "-")
    longer = [option for option in options if option.startswith(name)]
    short = SHORT.get(name, "") if each.dashes == 1 else ""
    if short in options:
        return f"{said}, did you mean --{short}={options[short]}?"
    if meant := longer[0] if len(longer) == 1 else nearest(name, options):
        value = each.text.partition("=")[1] + each.text.partition("=")[2]
        return f"{said}, did you mean {_shown('--' + meant + value)}?"
    if each.option in BY_NAME:
        return f"{said} of {command}; it is one of start and check"
    return f"{said}, see {PROGRAM} {command} --help"


def _extra_argument(text: str, previous: str, options: Options) -> str:
    """An argument that belongs to no flag; ``previous`` is the option in front of it."""
    if text.startswith("-"):
        name = text.lstrip("-")
        known = name.partition("=")[0] in options
        meant = (
            f"did you mean {_shown('--' + name)}?" if known else "expected two dashes and a name"
        )
        return f"{quote(text)}: no such flag, {meant}"
    said = f"{quote(text)}: a value without a flag"
    flag = BY_NAME.get(previous)
    if flag is not None and flag.kind is FlagKind.SWITCH:
        word = {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(text.lower(), text)
        if word.lower() in ("true", "false", "1", "0", "t", "f"):
            return (
                f"--{previous} takes its value after an equals sign: "
                f"did you mean --{previous}={word.lower()}?"
            )
    if flag is not None and flag.kind is FlagKind.MANY:
        return f"{said}; the values of --{previous} are separated by commas, without spaces"
    if text.partition("=")[0] in options:
        return f"{said}, did you mean {_shown('--' + text)}?"
    like_an_endpoint = text.startswith(("http://", "https://")) or re.search(":[0-9]+$", text)
    for name in ("endpoints", "endpoint"):
        if like_an_endpoint and name in options:
            return f"{said}, did you mean {_shown(f'--{name}={text}')}?"
    if text.endswith(".toml") and "config-file" in options:
        return f"{said}, did you mean {_shown('--config-file=' + text)}?"
    return f"{said}, expected flags that begin with two dashes"


def _line(arguments: Sequence[str]) -> str:
    """A command line as it could be typed, cut where it is long."""
    shown = " ".join(_shown(each) for each in arguments[:MAX_SHOWN_ARGUMENTS])
    more = " ..." if len(arguments) > MAX_SHOWN_ARGUMENTS else ""
    return f"{PROGRAM} {shown}{more}"


def _shown(argument: str) -> str:
    """An argument as a shell would need it, on one line and not endless."""
    return quote(shlex.quote(argument))[1:-1]
