"""Flags of the table as options of a click command: parsing, help and completion."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from supervisor.core.flags import BY_NAME, Flag, FlagKind

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class FlagOption(click.Option):
    """A flag of the table; its texts are collected here and read by ``core.config``.

    ``help_text``: what the flag is for in a command to which the table's text does not apply.
    """

    def __init__(self, flag: Flag, help_text: str = "") -> None:
        super().__init__(
            [f"--{flag.name}"],
            multiple=True,
            type=click.UNPROCESSED,
            metavar=flag.metavar or "BOOLEAN",
            help=help_text or flag.help,
            shell_complete=functools.partial(_complete, flag),
        )
        self.flag = flag

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        """The flag with its placeholder, and its help with the default."""
        del ctx
        flag = self.flag
        name = f"--{flag.name} {flag.metavar}".rstrip()
        shown = f"  [default: {flag.default}]" if flag.default not in ("", "false") else ""
        return name, f"{self.help}{shown}"


class FlagCommand(click.Command):
    """A command whose options are flags of the table: Go's booleans, help under headings."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, spell_out_switches(args))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        topics: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            topic = param.flag.topic.value if isinstance(param, FlagOption) else "Options"
            if record := param.get_help_record(ctx):
                topics.setdefault(topic, []).append(record)
        for topic, records in topics.items():
            with formatter.section(topic):
                formatter.write_dl(records, col_max=30)


def spell_out_switches(arguments: Sequence[str]) -> list[str]:
    """``--x`` as ``--x=true`` for booleans, which therefore never take the next argument."""
    spelled: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        flag = BY_NAME.get(argument.removeprefix("--")) if argument.startswith("--") else None
        if argument == "--":
            return [*spelled, argument, *rest]
        if flag is not None and flag.kind is FlagKind.SWITCH:
            spelled.append(f"{argument}=true")
        elif flag is not None:
            spelled.append(argument)
            spelled.extend(value for _, value in zip(range(1), rest, strict=False))
        else:
            spelled.append(argument)
    return spelled


def _complete(
    flag: Flag, ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    del ctx, param
    if flag.metavar == "FILE":
        return [CompletionItem(incomplete, type="file")]
    words = ("true", "false") if flag.kind is FlagKind.SWITCH else flag.choices
    return [CompletionItem(word) for word in words if word.startswith(incomplete)]
