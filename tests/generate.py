"""Write every page and sample file that is made from code: ``python -m tests.generate``.

``--check`` writes nothing; it names the pages that are out of date and exits 1 if there are any.
A page is generated as a whole, or in blocks between two comments that carry the block's name.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import importlib
import inspect
import re
import sys
import typing
from collections.abc import Callable, Sequence
from pathlib import Path

from gateway.core import endpoint, messages
from gateway.core.counters import End
from supervisor.core.workers.worker_state import draw_diagram

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"


def fill_block(text: str, name: str, content: str) -> str:
    """``text`` with ``content`` between the comments of block ``name``; they must be there."""
    begin, end = f"<!-- begin generated: {name} -->", f"<!-- end generated: {name} -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"the page has no block {name!r}: {begin} ... {end}")
    return f"{before}{begin}\n{content.strip()}\n{end}{after}"


# -- protocol.md ------------------------------------------------------------------------------


def draw_fields() -> str:
    """A table of the fields of every message and of what messages are made of."""
    kinds = [
        *typing.get_args(messages.Down),
        *typing.get_args(messages.Up),
        messages.EndpointReport,
        messages.Settings,
        endpoint.Endpoint,
    ]
    head = ["| type | field | is a | default |", "|---|---|---|---|"]
    rows = [
        f"| `{kind.__name__}` | `{each.name}` | `{_hint_text(each)}` | {_default(each)} |"
        for kind in kinds
        for each in dataclasses.fields(kind)
    ]
    return "\n".join(head + rows)


def _hint_text(field: dataclasses.Field[typing.Any]) -> str:
    text = field.type if isinstance(field.type, str) else inspect.formatannotation(field.type)
    return text.replace("|", "\\|")


def _default(field: dataclasses.Field[typing.Any]) -> str:
    if field.default is not dataclasses.MISSING:
        value = getattr(field.default, "value", field.default)
        return "empty" if value == () else f"`{value}`"
    if field.default_factory is dataclasses.MISSING:
        return "required"
    made = field.default_factory()
    return "empty" if made == {} else "its defaults"


# -- adr/index.md -----------------------------------------------------------------------------


def list_decisions() -> str:
    """Every ADR with its title and status, as a table."""
    lines = ["| decision | status |", "|---|---|"]
    for path in sorted((DOCS / "adr").glob("[0-9]*.md")):
        text = path.read_text()
        title = text.partition("\n")[0].removeprefix("# ")
        status = re.search(r"## Status\n+(\w+)", text)
        lines.append(f"| [{title}]({path.name}) | {status[1] if status else '?'} |")
    return "\n".join(lines)


# -- architecture.md --------------------------------------------------------------------------

PLACES = (
    "gateway/core",
    "gateway",
    "gateway/ingress",
    "gateway/sessions",
    "supervisor/core",
    "supervisor/core/discovery",
    "supervisor/core/health",
    "supervisor/core/workers",
    "supervisor/core/admin",
    "supervisor",
    "supervisor/cli",
    "supervisor/workers",
    "supervisor/discovery",
    "supervisor/health",
    "supervisor/handover",
    "supervisor/admin",
    "supervisor/system",
    "supervisor/demo",
)


def list_modules() -> str:
    """Every module with the first sentence of its docstring, by the folder it is in."""
    parts: list[str] = []
    for place in PLACES:
        rows = [
            f"| `{path.name}` | {_first_sentence(path)} |"
            for path in sorted((ROOT / place).glob("*.py"))
            if path.name != "__init__.py"
        ]
        parts += [f"### {place}", "", "| module | what it is |", "|---|---|", *rows, ""]
    return "\n".join(parts)


def _first_sentence(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text())) or "?"
    paragraph = " ".join(docstring.partition("\n\n")[0].split())
    sentence = re.split(r"(?<=[.!?])\s", paragraph)[0]
    return re.sub(r":\w+:`([^`]+)`", r"`\1`", sentence.replace("``", "`")).replace("|", "\\|")


# -- operations.md ----------------------------------------------------------------------------

END_MEANINGS = {
    End.CLIENT: "both directions ended in order, the client's first",
    End.ENDPOINT: "both directions ended in order, the endpoint's first",
    End.RESET: "a side (`reset_by`) reset its connection or vanished before any orderly end",
    End.IDLE: "no byte moved for `--idle-timeout`",
    End.INACTIVE: "its endpoint turned inactive and `--on-inactive` is `close`",
    End.REMOVED: "its endpoint left DNS and `--removal-grace` is over",
    End.DRAINED: "the gateway or its worker stopped, and the drain was near its deadline; or its "
    "endpoint is named in `--drain-endpoints` and `--removal-grace` is over",
    End.AGE: "it was as old as `--max-session-age`",
    End.REBALANCE: "its endpoint had more than its share of sessions (`--rebalance`)",
    End.NO_ENDPOINT: "no endpoint was known that may get sessions",
    End.DIAL_FAILED: "every endpoint was dialed and none could be reached",
    End.DENIED: "the client is not in `--allow`; nothing was dialed",
    End.PROXY_HEADER: "no PROXY protocol header came from a peer in `--proxy-in`, or none that "
    "can be read; `error` says what was wrong",
    End.ERROR: "the host had no memory for it, or the gateway failed (`session failed` in the "
    "log). The metric also counts here what a worker that died had; the access log has no lines "
    "of it",
}


def explain_ends() -> str:
    """Every ``end`` of the access log with its meaning; a new one must be explained here."""
    rows = [f"| `{end.value}` | {END_MEANINGS[end]} |" for end in End]
    return "\n".join(["| `end` | the session ended because |", "|---|---|", *rows])


# -- all of it --------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Block:
    """One block of a page, by the page's path in ``docs``."""

    page: str
    name: str
    render: Callable[[], str]


def render_elsewhere(module: str, function: str) -> Callable[[], str]:
    """A generator that belongs to another module, imported only when it is needed."""

    def render() -> str:
        made: str = getattr(importlib.import_module(module), function)()
        return made

    return render


def draw_worker_life() -> str:
    """The state diagram of a worker, from its table of transitions."""
    return f"```mermaid\n{draw_diagram()}\n```"


BLOCKS = (
    Block("protocol.md", "fields", draw_fields),
    Block("../README.md", "comparison", render_elsewhere("tests.comparison", "draw")),
    Block("adr/index.md", "decisions", list_decisions),
    Block("architecture.md", "modules", list_modules),
    Block("operations.md", "ends", explain_ends),
    Block("life-of-a-worker.md", "diagram", draw_worker_life),
    Block("fleet.md", "fleet", render_elsewhere("tests.fleet.table", "draw_table")),
)

PAGES: dict[str, Callable[[], str]] = {
    "docs/usage.md": render_elsewhere("tests.usage", "render"),
    "deploy/etcd-gateway.default": render_elsewhere("tests.samples", "render_environment_file"),
    "deploy/man/etcd-gateway.1": render_elsewhere("tests.man", "render_command"),
    "deploy/man/etcd-gateway.toml.5": render_elsewhere("tests.man", "render_config_file"),
    "deploy/systemd/etcd-gateway@.service": render_elsewhere(
        "tests.samples", "render_template_unit"
    ),
    "deploy/etcd-gateway.toml": render_elsewhere("tests.samples", "render_config_file"),
}
"""Files that are generated as a whole, by their path in the repository."""


def render_all() -> dict[Path, str]:
    """What every generated file should hold, by its path."""
    wanted = {ROOT / page: render() for page, render in PAGES.items()}
    for block in BLOCKS:
        path = (DOCS / block.page).resolve()
        text = wanted.get(path) or path.read_text()
        wanted[path] = fill_block(text, block.name, block.render())
    return wanted


def find_stale() -> list[Path]:
    """The files that do not hold what they should."""
    return [
        path for path, text in render_all().items() if not path.exists() or path.read_text() != text
    ]


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args(argv).check
    stale, wanted = find_stale(), render_all()
    for path in stale:
        name = path.relative_to(ROOT)
        if check:
            print(f"out of date: {name}")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[path])
            print(f"written: {name}")
    return 1 if stale and check else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
