"""One vocabulary: the glossary's words are in use, and the words that were retired are not."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.generate import DOCS, ROOT

GLOSSARY = DOCS / "glossary.md"

RETIRED = {
    "crew": "worker pool",
    "herald": "service notifier",
    "lookout": "port monitor",
    "stranger": "foreign listener",
    "strangers": "foreign listeners",
    "estate": "handover state",
    "heirloom": "inherited descriptor",
    "heirlooms": "inherited descriptors",
    "bequeath": "hand over",
    "heritage": "handover state",
    "board": "scoreboard",
    "intake": "ingress",
    "door": "listener watcher",
    "breath": "resume accepting",
    "inhale": "resume accepting",
    "pusher": "snapshot publisher",
    "stirred": "dirty",
    "doomed": "scheduled cuts",
    "leavers": "draining",
    "parked": "held back",
    "how-manieth": "which",
    "road": "path",
    "roads": "paths",
    "stillborn": "failed start",
    "condemn": "protocol error",
    "bury": "add to the dead workers",
    "birth": "spec",
    "births": "specs",
    "puzzled": "undecided",
}
"""Words that were metaphors, with the standard term that took their place."""

RETIRED_NAMES = {
    "follower": "discovery loop",
    "hand": "handle",
    "hands": "handles",
    "orders": "commands",
    "life": "state",
}
"""Words that may stand in a sentence, but not alone as the name of anything in the code."""

SUFFIXES = {".py", ".md", ".html", ".yml", ".json", ".toml", ".service", ".conf", ".sh", ".socket"}


def find_texts() -> Iterator[Path]:
    """Every file of ours that people read: code, tests, pages, units, dashboards."""
    for place in ("gateway", "supervisor", "tests", "docs", "deploy"):
        for path in sorted((ROOT / place).rglob("*")):
            if path.suffix in SUFFIXES and path != Path(__file__):
                yield path
    yield from (ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md"))


def split_words(text: str) -> set[str]:
    """The words of a text in lower case; names are split at underscores and capitals."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text).replace("_", " ")
    return set(re.findall(r"[a-z]+(?:-[a-z]+)*", spaced.lower()))


def find_names(path: Path) -> Iterator[str]:
    """Every name that a module defines: of itself, classes, functions, arguments, variables."""
    yield path.stem
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.ClassDef(name=name) | ast.arg(arg=name):
                yield name
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name


def read_terms() -> list[str]:
    """The words that the glossary explains."""
    terms: list[str] = []
    for line in GLOSSARY.read_text().splitlines():
        if line.startswith("- "):
            terms += re.findall(r"\*\*(.+?)\*\*", line.partition(":")[0])
    return terms


def test_no_retired_word_is_left() -> None:
    """Neither a page nor a log line, a metric, a comment or a name uses a word that was retired."""
    found = [
        f"{path.relative_to(ROOT)}: {word!r}, expected {RETIRED[word]!r}"
        for path in find_texts()
        for word in sorted(split_words(path.read_text()) & RETIRED.keys())
    ]
    assert found == []


def test_no_name_is_a_retired_word() -> None:
    """Words that are ambiguous alone name nothing in the product's code."""
    found = [
        f"{path.relative_to(ROOT)}: {name}, expected {RETIRED_NAMES[name.strip('_').lower()]}"
        for package in ("gateway", "supervisor")
        for path in sorted((ROOT / package).rglob("*.py"))
        for name in sorted(set(find_names(path)))
        if name.strip("_").lower() in RETIRED_NAMES
    ]
    assert found == []


def test_every_word_is_explained_once() -> None:
    """A word has one meaning, so it has one entry."""
    terms = read_terms()
    assert len(terms) > 40
    assert [term for term in terms if terms.count(term) > 1] == []


@pytest.mark.slow
@pytest.mark.parametrize("term", read_terms())
def test_the_code_uses_the_word(term: str) -> None:
    """What the glossary explains occurs in the code, as words or as a name."""
    sources = [
        path.read_text()
        for package in ("gateway", "supervisor")
        for path in (ROOT / package).rglob("*.py")
    ]
    pattern = re.compile(r"[\s_-]*".join(map(re.escape, term.split())), re.IGNORECASE)
    assert any(pattern.search(text) for text in sources)
