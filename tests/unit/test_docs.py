"""The pages: their links, their generated parts, and the names that users rely on."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

from supervisor.core import exit_codes
from supervisor.core.flags import BY_NAME
from tests import generate, man
from tests.generate import DOCS, ROOT

PAGES = sorted(DOCS.rglob("*.md"))
ENTRANCES = [
    path
    for path in (
        ROOT / name
        for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "RELEASING.md")
    )
    if path.exists()
]
DECISIONS = sorted((DOCS / "adr").glob("[0-9]*.md"))

METRICS = (
    "etcd_gateway_build_info",
    "etcd_gateway_sessions",
    "etcd_gateway_sessions_total",
    "etcd_gateway_sessions_ended_total",
    "etcd_gateway_session_duration_seconds",
    "etcd_gateway_bytes_total",
    "etcd_gateway_dials_total",
    "etcd_gateway_dial_duration_seconds",
    "etcd_gateway_endpoint_active",
    "etcd_gateway_endpoint_transitions_total",
    "etcd_gateway_probes_total",
    "etcd_gateway_refused_total",
    "etcd_gateway_discovery_total",
    "etcd_gateway_discovery_last_success_timestamp_seconds",
    "etcd_gateway_endpoints",
    "etcd_gateway_snapshot_version",
    "etcd_gateway_reloads_total",
    "etcd_gateway_workers",
    "etcd_gateway_worker_restarts_total",
    "etcd_gateway_worker_sessions",
    "etcd_gateway_worker_snapshot_version",
    "etcd_gateway_worker_loop_lag_seconds",
    "etcd_gateway_accept_paused_total",
    "etcd_gateway_foreign_listeners",
    "etcd_gateway_endpoints_refused",
    "etcd_gateway_last_reload_successful",
    "etcd_gateway_worker_cpu_seconds_total",
    "etcd_gateway_worker_resident_memory_bytes",
    "etcd_gateway_endpoint_certificate_not_after_timestamp_seconds",
    "etcd_gateway_probe_duration_seconds",
    "etcd_gateway_tcp_rtt_seconds",
    "etcd_gateway_tcp_retransmits_total",
)
"""Dashboards and alerts of users depend on these; a name may be added, none may change."""

LOG_LINES = (
    "ready to proxy client requests",
    "discovered cluster from SRV",
    "validating discovered SRV endpoints",
    "using validated discovered SRV endpoints",
    "deactivated endpoint",
    "activated",
    "worker ready",
    "worker exited",
    "reload complete",
    "reload failed",
    "endpoints changed",
    "draining",
    "drained",
    "session",
)
"""People search their logs for these; the first six are those of ``etcd gateway``."""

UNENGLISH = (
    *("stands in ", "stand in ", "is none of", "are none of", "not to be had", "for want of"),
    *(
        "This page is for",
        "the first design",
        "packages were given",
        "the goals were",
        "same evening",
    ),
)
"""Phrases that have come into the pages before, and what they are: listed, no, missing, lacking."""

COMMANDS = {"start", "check", "status", "sessions", "reload", "demo", "completion"}

OTHER_FLAGS = {
    *("--version", "--help", "--json", "--explain", "--watch", "--etcd", "--once", "--check"),
    *(
        "--client-cert-auth",
        "--cluster",
        "--advertise-client-urls",
        "--enable-grpc-gateway",
        "--listen-client-http-urls",
        "--listen-metrics-urls",
        "--logger",
        "--slurpfile",
    ),
    *("--endpoint", "--limit", "--sort"),
    *("--read-only", "--stop-timeout", "--concurrency", "--restart-epoch", "--require-hashes"),
    *("--format", "--build-arg", "--env-file"),
}
"""Flags of our other commands, of ``tests.generate``, of etcd, of jq, and of programs beside us."""

ABOUT_OUR_FLAGS = [
    path
    for path in [*ENTRANCES, *PAGES]
    if path.name not in {"performance.md", "CONTRIBUTING.md", "CHANGELOG.md", "RELEASING.md"}
]
"""Pages whose flags are the gateway's own and not those of some other program."""


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def read_prose(path: Path) -> str:
    """The page without its code blocks."""
    return re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)


def find_links(path: Path) -> list[str]:
    """What the page links to, without the links that leave the repository."""
    links = re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", read_prose(path))
    return [link for link in links if not re.match(r"[a-z]+:", link)]


def find_anchors(path: Path) -> set[str]:
    """The headings of a page as the anchors that hosting sites make of them."""
    headings = re.findall(r"^#+ (.+)$", read_prose(path), re.MULTILINE)
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.strip().replace(" ", "-") for heading in kept}


@pytest.mark.parametrize("page", [*ENTRANCES, *PAGES], ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    """Every link to a page, a file or a heading of the repository finds it."""
    dangling: list[str] = []
    for link in find_links(page):
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        if not path.exists() or (anchor and anchor not in find_anchors(path)):
            dangling.append(link)
    assert dangling == []


def test_every_cell_of_the_comparison_leads_to_its_evidence() -> None:
    """For us that is a test or a page, for the others a page that says how they do it."""
    text = (ROOT / "README.md").read_text()
    table = re.findall(r"^\| .*\]\(.*$", text.partition("## Compare it")[2], re.MULTILINE)
    rows = [row.strip("| ").split(" | ") for row in table]
    rows = [row for row in rows if len(row) == 6]
    assert len(rows) > 10
    for title, *cells in rows:
        for cell in cells:
            found = re.fullmatch(r"\[[^\]]+\]\(((?:tests|docs)/[^)#]+)(#[^)]+)?\)", cell)
            assert found, f"{title}: {cell} has no link to its evidence"
            assert (ROOT / found[1]).is_file(), f"{title}: {found[1]} is no file"
            if found[1].startswith("tests/"):
                assert re.search(r"^def test_", (ROOT / found[1]).read_text(), re.MULTILINE)
            else:
                assert found[2][1:] in find_anchors(ROOT / found[1]), f"{title}: {cell}"


def test_every_page_is_reachable_from_the_index() -> None:
    """Whoever begins at the index gets to every page."""
    seen: set[Path] = set()
    waiting = [DOCS / "index.md"]
    while waiting:
        page = waiting.pop()
        if page in seen or not page.is_file():
            continue
        seen.add(page)
        for link in find_links(page):
            path = (page.parent / link.partition("#")[0]).resolve()
            waiting += [path] if path.suffix == ".md" else sorted(path.glob("*.md"))
    assert sorted(map(name_of, set(PAGES) - seen)) == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_begins_with_its_subject(page: Path) -> None:
    """A page has one title, and does not spend its first sentence on who should read it."""
    title, _, body = page.read_text().partition("\n")
    assert title.startswith("# ")
    assert body.strip()
    assert "This page is for" not in body
    assert "\n# " not in read_prose(page)


@pytest.mark.parametrize("page", [*ENTRANCES, *PAGES], ids=name_of)
def test_pages_are_written_in_plain_english(page: Path) -> None:
    """No phrase of translated English, and no page that explains how it came about."""
    text = page.read_text()
    assert [phrase for phrase in UNENGLISH if phrase in text] == []


def test_generated_parts_are_up_to_date() -> None:
    """What is made from code says what the code says; ``make docs`` brings it up to date."""
    assert [name_of(path) for path in generate.find_stale()] == []


def test_a_block_is_filled_between_its_comments() -> None:
    """Filling a block leaves everything outside of it alone, and filling it again is no change."""
    page = "a\n<!-- begin generated: x -->\nold\n<!-- end generated: x -->\nb\n"
    once = generate.fill_block(page, "x", "new")
    assert once == "a\n<!-- begin generated: x -->\nnew\n<!-- end generated: x -->\nb\n"
    assert generate.fill_block(once, "x", "new\n") == once


def test_a_page_without_the_block_is_an_error() -> None:
    """A block that got lost is noticed, and not silently left out."""
    with pytest.raises(ValueError, match="no block 'x'"):
        generate.fill_block("a page", "x", "new")


def test_modules_on_the_page_of_the_architecture_exist() -> None:
    """Also those that are named by hand: whoever looks for a fault begins there."""
    text = (DOCS / "architecture.md").read_text()
    named = set(re.findall(r"`((?:[a-z_]+/)*[a-z_]+\.py)`", text))
    sources = [path for place in ("gateway", "supervisor") for path in (ROOT / place).rglob("*.py")]
    known = {"/".join(path.parts[-n:]) for path in sources for n in range(1, 6)}
    assert named - known == set()


def test_every_metric_is_documented() -> None:
    """Every metric of the contract stands on a page, by its whole name."""
    text = "\n".join(page.read_text() for page in PAGES)
    assert [name for name in METRICS if not re.search(rf"{name}(?![a-z_])", text)] == []


def test_every_exit_code_is_documented() -> None:
    """Each command has its rows on the page of operations; man has the codes, too."""
    codes = {str(value) for name, value in vars(exit_codes).items() if name.startswith("EXIT_")}
    section = (DOCS / "operations.md").read_text().partition("## Exit codes\n")[2]
    table = re.findall(r"^\| (\S*) ?\| (\d+) \|", section.partition("\n## ")[0], re.MULTILINE)
    assert {code for _, code in table} == codes == {str(code) for code, _ in man.EXIT_CODES}
    assert {command.strip("`") for command, _ in table} - {""} == {"all", *COMMANDS}


def test_every_file_of_the_system_that_is_read_is_on_the_page_of_security() -> None:
    """Whoever confines the gateway finds there what it needs."""
    named: set[str] = set()
    for path in [*(ROOT / "gateway").rglob("*.py"), *(ROOT / "supervisor").rglob("*.py")]:
        named.update(re.findall(r'"(/(?:etc|sys)/[a-z/._-]+)"', path.read_text()))
    page = (DOCS / "security.md").read_text()
    assert len(named) > 3
    assert sorted(each for each in named if f"`{each}`" not in page) == []


def test_every_log_line_is_documented() -> None:
    """Every log line of the contract stands on a page as code."""
    text = "\n".join(page.read_text() for page in PAGES)
    assert [line for line in LOG_LINES if f"`{line}`" not in text] == []


def test_every_line_that_the_code_logs_is_documented() -> None:
    """Whoever finds a line in the log, of any level, finds it on the page of operations."""
    folders = (ROOT / "gateway", ROOT / "supervisor")
    trees = [ast.parse(path.read_text()) for each in folders for path in each.rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    named: defaultdict[str, set[str]] = defaultdict(set)
    messages: list[ast.expr] = []
    for node in nodes:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=str(text))):
                if name.isupper() or name == "msg":
                    named[name].add(text)
            case ast.Call(
                func=ast.Attribute(
                    value=ast.Name(id="log") | ast.Attribute(attr="log" | "_log"),
                    attr="debug" | "info" | "warn" | "error" | "answer",
                ),
                args=[message, *_],
            ):
                messages.append(message)
            case ast.keyword(arg="msg", value=message):
                messages.append(message)
    logged: set[str] = set()
    for part in (part for message in messages for part in ast.walk(message)):
        match part:
            case ast.Constant(value=str(line)):
                logged.add(line)
            case ast.Name(id=name) | ast.Attribute(attr=name):
                logged |= named[name]
    assert len(logged) > len(LOG_LINES)
    page = (DOCS / "operations.md").read_text()
    table = "".join(line for line in page.splitlines() if line.startswith("| `"))
    assert sorted(line for line in logged if f"`{line}`" not in table) == []


def test_every_log_line_is_written_by_the_code() -> None:
    """No log line of the contract is a promise only."""
    written = texts_of_the_code()
    assert [line for line in LOG_LINES if line not in written] == []


def test_every_log_line_that_a_test_looks_for_is_written_by_the_code() -> None:
    """A test that a line is missing passes for ever once the line has another name."""
    looked_for: dict[str, str] = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        for line in re.findall(r"\.(?:lines|lines_of|wait_line)\(\"([^\"\n]+)\"", path.read_text()):
            looked_for[line] = path.name
    assert len(looked_for) > 50
    written = texts_of_the_code()
    assert {line: name for line, name in looked_for.items() if line not in written} == {}


def texts_of_the_code() -> set[str]:
    """Whatever stands between quotation marks in the sources."""
    texts: set[str] = set()
    for path in [*(ROOT / "gateway").rglob("*.py"), *(ROOT / "supervisor").rglob("*.py")]:
        texts.update(re.findall(r"\"([^\"\n]+)\"", path.read_text()))
    return texts


@pytest.mark.parametrize("page", ABOUT_OUR_FLAGS, ids=name_of)
def test_flags_on_the_pages_exist(page: Path) -> None:
    """A flag that a page names is one that the gateway has."""
    code = "\n".join(re.findall(r"`([^`\n]+)`", page.read_text()))
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", code))
    assert sorted(named - {f"--{name}" for name in BY_NAME} - OTHER_FLAGS) == []


@pytest.mark.parametrize("page", [*ENTRANCES, *PAGES], ids=name_of)
def test_commands_on_the_pages_exist(page: Path) -> None:
    """What a page tells you to type is a command of the gateway."""
    text = page.read_text()
    typed = re.findall(r"`etcd-gateway ([a-z]+)", text)
    for block in re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        typed += re.findall(r"^[+$ ]*(?:\S*/)?etcd-gateway ([a-z]+)", block, re.MULTILINE)
    assert set(typed) - COMMANDS == set()


def test_the_make_targets_of_the_readme_exist() -> None:
    """The commands of the README are verbs of the Makefile, and both of them are shown."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"^make ([a-z]+)", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert {"run", "test"} <= named <= targets


@pytest.mark.parametrize("page", DECISIONS, ids=name_of)
def test_a_decision_has_its_sections(page: Path) -> None:
    """Status, context, decision, consequences, in this order, on one page."""
    text = page.read_text()
    sections = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert sections == ["Status", "Context", "Decision", "Consequences"]
    assert text.startswith(f"# {page.name[:4]} ")
    assert len(text.splitlines()) <= 60


def test_decisions_are_numbered_without_gaps() -> None:
    """Each number stands for one decision, for ever."""
    assert [int(page.name[:4]) for page in DECISIONS] == list(range(1, len(DECISIONS) + 1))
