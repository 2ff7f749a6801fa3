"""The relay as native code: built, used, and as good as the interpreted one."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from deploy.distribution import compiled
from deploy.distribution.compiled import HERE, CannotCompileError, compile_into
from gateway.poller import BATCH
from gateway.sessions.leg import READ_BYTES
from supervisor.gateway_view import COMPILED
from tests import compiled as copies

RELAY = [
    f"tests/integration/gateway/test_{name}.py"
    for name in ("relay", "resets", "session_model", "unix", "urgent")
] + [f"tests/unit/gateway/test_{name}.py" for name in ("pipes", "poller", "tcp_calls")]

CALLS = re.compile(r"from (os|time) import .+|(poll|register|close_fd) = .+")

pytestmark = pytest.mark.timeout(900)

MISSING = compiled.find_missing()
needs_compiler = pytest.mark.skipif(bool(MISSING), reason=f"needs {MISSING}")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compiled") / "tree"
    copies.copy(folder, quick=True)
    return folder


@needs_compiler
@pytest.mark.slow(seconds=60)
def test_the_relays_tests_pass(copy: Path) -> None:
    """Sessions whatever both sides do, resets, urgent bytes, UNIX sockets. All: make compiled."""
    assert copies.is_compiled(copy)
    argv = ["-m", "pytest", "-q", "-m", copies.MARKERS, "-p", "no:cacheprovider"]
    assert copies.run([*argv, *RELAY], copy) == 0


@needs_compiler
@pytest.mark.slow(seconds=5)
def test_a_gateway_says_that_it_is_compiled(copy: Path) -> None:
    """``compiled`` of the status document."""
    program = "from supervisor.gateway_view import COMPILED; raise SystemExit(not COMPILED)"
    assert copies.run(["-c", program], copy) == 0
    assert not COMPILED


def test_every_line_is_compiled_where_it_stands(tmp_path: Path) -> None:
    """Tracebacks of the compiled relay name lines of the sources, which are installed beside it."""
    compiled._copy_sources(tmp_path)
    for module in compiled.RELAY:
        before = Path(compiled.ROOT, f"{module}.py").read_text().splitlines()
        after = (tmp_path / f"{module}.py").read_text().splitlines()
        assert len(after) == len(before), module
        changed = [old for old, new in zip(before, after, strict=True) if old != new]
        assert all(CALLS.fullmatch(line) for line in changed), changed


@pytest.mark.parametrize("module", compiled.RELAY)
def test_what_is_a_boolean_there_is_one_here(module: str) -> None:
    """A number that the types call bint would be 1 or 0 to whoever looks at it from Python."""
    types = (HERE / f"{Path(module).name}.pxd").read_text()
    booleans = set(re.findall(r"\w+", " ".join(re.findall(r"cdef (?:public )?bint (.+)", types))))
    tree = ast.parse(Path(compiled.ROOT, f"{module}.py").read_text())
    wrong = [
        f"{target.attr} = {node.value.value!r}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Attribute) and target.attr in booleans
        if not isinstance(node.value.value, bool)
    ]
    assert not wrong


def test_without_a_compiler_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "/nowhere/cc")
    with pytest.raises(CannotCompileError, match=r"a C compiler \(/nowhere/cc\) is needed"):
        compile_into(tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_read_and_a_batch_fit_into_their_buffers() -> None:
    """A read that cannot fill is never taken for a sign of bulk."""
    calls = (HERE / "calls.h").read_text()
    assert f"calls_read_buffer[{READ_BYTES}]" in calls
    assert f"calls_events[{BATCH}]" in calls
