"""``python -m tests.benchmarks``: etcd-gateway beside HAProxy, nginx, Envoy and etcd gateway."""

from __future__ import annotations

import argparse
import compileall
import contextlib
import datetime
import json
import sys
import tempfile
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from tests.benchmarks.chart import draw_chart
from tests.benchmarks.hostile import HOSTILE_MEASURES
from tests.benchmarks.loads import answering_server, sinking_server
from tests.benchmarks.machine import describe, share_cpus
from tests.benchmarks.many import MANY_MEASURES
from tests.benchmarks.measures import MEASURES as BASIC_MEASURES
from tests.benchmarks.measures import Measure, Setting
from tests.benchmarks.own import OWN_MEASURES
from tests.benchmarks.processes import BenchmarkError, raise_descriptor_limit
from tests.benchmarks.report import write_report
from tests.benchmarks.results import BEFORE, COMPILED, Results, judge
from tests.benchmarks.rounds import plan, take_turns
from tests.benchmarks.subjects import FLOOR, OURS, PEERS, Subject, installed

MEASURES = (*BASIC_MEASURES, *MANY_MEASURES)
SUBJECTS = [subject.name for subject in (OURS, *PEERS, FLOOR)]
_DOCS = Path(__file__).resolve().parents[2] / "docs"
_HOSTILE_MARKS = ("<!-- hostile figures -->", "<!-- end of hostile figures -->")
_MARKS = ("<!-- figures -->", "<!-- end of figures -->")
_DESCRIPTORS = 65_536
_ENDPOINTS, _MANY_ENDPOINTS = 3, 3_000


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and report; the exit code (1 if a turn failed)."""
    options = _parse(argv)
    results = options.draw or Results()
    if not options.draw:
        try:
            _measure(options, results)
        except KeyboardInterrupt:
            results.failures.append("interrupted: the figures are those of the turns until then")
        except BenchmarkError as error:
            print(f"benchmark: {error}", file=sys.stderr)
            return 1
    _publish(options, results)
    return 1 if results.failures else 0


def _read_results(path: str) -> Results:
    """Of an earlier run."""
    try:
        return Results.from_json(json.loads(Path(path).read_text()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise argparse.ArgumentTypeError(f"{path} is no results.json of a run: {error!r}") from None


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    keys = [m.key for m in (*MEASURES, *HOSTILE_MEASURES, *OWN_MEASURES)]
    usual = [m.key for m in (*MEASURES, *OWN_MEASURES)]
    patterns = sorted({*keys, "hostile-*"})
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round, to see it work")
    parser.add_argument("--rounds", type=_count, default=5, help="rounds of each measure")
    parser.add_argument("--duration", type=_count, default=5, help="seconds of each load")
    parser.add_argument("--sessions", type=_count, default=3000, help="idle sessions")
    parser.add_argument("--only", nargs="+", metavar="MEASURE", choices=patterns, default=usual)
    parser.add_argument("--subjects", nargs="+", choices=SUBJECTS, help="only these subjects")
    parser.add_argument(
        "--ours", type=Path, metavar="PROGRAM", help="as it is installed, not as in development"
    )
    parser.add_argument(
        "--before", type=Path, metavar="PROGRAM", help="another release, in the same run"
    )
    parser.add_argument(
        "--compiled", type=Path, metavar="PROGRAM", help="with the compiled relay, in the same run"
    )
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks"))
    parser.add_argument("--docs", action="store_true", help="put the figures into docs/")
    parser.add_argument(
        "--draw", type=_read_results, metavar="JSON", help="report an earlier run again"
    )
    options = parser.parse_args(argv)
    options.only = [key for key in keys if any(fnmatch(key, each) for each in options.only)]
    if options.quick:
        options.rounds, options.duration, options.sessions = 1, 1, 300
    return options


def _count(text: str) -> int:
    """A number that is worth measuring with."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _choose(options: argparse.Namespace, results: Results) -> list[Subject]:
    """The subjects that are installed; those that are not are failures, never left out silently."""
    chosen = []
    ours = installed(OURS.name, options.ours) if options.ours else OURS
    others = {BEFORE: options.before, COMPILED: options.compiled}
    more = [installed(name, program) for name, program in others.items() if program]
    for subject in (ours, *more, *PEERS, FLOOR):
        if options.subjects and subject.name not in (*options.subjects, BEFORE, COMPILED):
            continue
        if subject.program is None:
            results.failures.append(f"{subject.name} is not installed ({subject.install})")
            continue
        results.versions[subject.name] = subject.version(subject.program)
        chosen.append(subject)
    return chosen


def _measure(options: argparse.Namespace, results: Results) -> None:
    for package in ("gateway", "supervisor"):  # as an installation does
        compileall.compile_dir(str(_DOCS.parent / package), quiet=1)
    places = share_cpus()
    subjects = _choose(options, results)
    results.machine = {
        **describe(options.ours or Path(OURS.program or sys.executable)),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "rounds": f"{options.rounds} of {options.duration} s",
        "descriptors": str(raise_descriptor_limit(_DESCRIPTORS)),
    }
    wanted: tuple[list[Measure], list[Measure]] = (
        [m for m in (*MEASURES, *HOSTILE_MEASURES) if m.key in options.only],
        [m for m in OWN_MEASURES if m.key in options.only],
    )
    turns = plan(*wanted, subjects, options.rounds)
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmarks-")))
        server = stack.enter_context(answering_server(directory, places.backend, _MANY_ENDPOINTS))
        setting = Setting(
            places=places,
            endpoints=server.endpoints[:_ENDPOINTS],
            tls_endpoints=server.tls_endpoints,
            http2_endpoints=server.http2_endpoints,
            many_endpoints=server.endpoints,
            sink=stack.enter_context(sinking_server(directory, places.backend)),
            directory=directory,
            duration_s=options.duration,
            sessions=options.sessions,
        )
        take_turns(turns, setting, results, lambda line: print(line, flush=True))


def _publish(options: argparse.Namespace, results: Results) -> None:
    """Write the results as JSON, Markdown and a chart, and into the documentation if asked."""
    hostile = {measure.key for measure in HOSTILE_MEASURES}
    only_hostile = bool(results.samples) and hostile >= results.samples.keys()
    outcomes = [] if only_hostile else judge(results)
    report = write_report(results, (*MEASURES, *HOSTILE_MEASURES), OWN_MEASURES, outcomes)
    print("\n" + report)
    written = {
        "results.json": json.dumps(results.to_json(), indent=1) + "\n",
        "report.md": report,
        "chart.svg": draw_chart(results, MEASURES),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    for name, text in written.items():
        (options.out / name).write_text(text)
    print(f"written: {', '.join(str(options.out / name) for name in written)}")
    if options.docs and only_hostile:
        page = _DOCS / "performance.md"
        page.write_text(insert_figures(page.read_text(), report, _HOSTILE_MARKS))
        print(f"the figures are in {page}")
    elif options.docs:
        (_DOCS / "performance.svg").write_text(written["chart.svg"])
        page = _DOCS / "performance.md"
        page.write_text(insert_figures(page.read_text(), report))
        print(f"the figures are in {page}")


def insert_figures(page: str, report: str, marks: tuple[str, str] = _MARKS) -> str:
    """The page with the report between the marks."""
    before, _, rest = page.partition(marks[0])
    _, _, after = rest.partition(marks[1])
    return f"{before}{marks[0]}\n\n{report}\n{marks[1]}{after}"


if __name__ == "__main__":
    sys.exit(main())
