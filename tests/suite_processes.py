"""A plugin of pytest that runs the collected tests in several processes.

The process that collected them forks, so what they import and what is collected is made once for
all. Each fork takes one module after the other, so what a module shares is made once too, and sends
its reports to the first process, which tells them as if it had run the tests itself.

Each fork has a process group of its own. When the shell that began a run in the background ends,
the kernel continues what tests have stopped in the shell's group (setpgid(2), orphaned groups).
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import coverage
import pytest
from _pytest.config import create_terminal_writer

from tests import fork_server

INDEX_BYTES = 2
"""Of a module's number in the queue, which is a pipe; 32,768 of them fit in (pipe(7))."""

OWN_DIRECTORY = "process"
"""So begins the name of a fork's directory for temporary files, in that of the first process."""


def find_shared_directory(factory: pytest.TempPathFactory) -> Path:
    """A directory for temporary files that all processes of this run have in common."""
    base = factory.getbasetemp()
    return base.parent if base.name.startswith(OWN_DIRECTORY) else base


class SuiteProcesses:
    """Runs the tests in ``jobs`` forks; owns them until the last one has ended."""

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._running: dict[Connection, Fork] = {}

    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        """Instead of pytest's own loop, which tells when a module could not be collected."""
        if session.testsfailed or session.config.option.collectonly:
            return None
        modules = _by_module(session.items)
        queue_r = _make_queue(len(modules))
        session.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
        if not all(item.get_closest_marker("unit") for item in session.items):
            fork_server.prepare()
        gc.collect()
        gc.freeze()  # what was collected is for good: no fork looks at it, and copies it
        try:
            for number in range(min(self._jobs, len(modules))):
                fork = Fork(session, number, modules, queue_r)
                self._running[fork.reports_r] = fork
            os.close(queue_r)
            self._tell_reports(session)
        finally:
            for fork in self._running.values():
                fork.interrupt()
        return True

    def _tell_reports(self, session: pytest.Session) -> None:
        while self._running:
            for connection in wait(list(self._running)):
                fork = self._running[connection]  # type: ignore[index]
                for report in fork.receive():
                    session.config.hook.pytest_runtest_logreport(report=report)
                if fork.ended:
                    del self._running[fork.reports_r]
            if session.shouldfail:
                raise session.Failed(session.shouldfail)


class Fork:
    """One process that runs tests; owns the pipe that its reports come through."""

    def __init__(
        self,
        session: pytest.Session,
        number: int,
        modules: Sequence[Sequence[pytest.Item]],
        queue_r: int,
    ) -> None:
        context = multiprocessing.get_context("fork")
        self.reports_r, reports_w = context.Pipe(duplex=False)
        self.ended = False
        self._config = session.config
        self._number = number
        self._test = ""
        self._process: BaseProcess = context.Process(
            target=_run_modules, args=(session, number, modules, queue_r, reports_w)
        )
        self._process.start()
        reports_w.close()

    def receive(self) -> Iterator[pytest.TestReport]:
        """The next report, if there is one; also of an end that no test reports."""
        try:
            test, report = self.reports_r.recv()
        except EOFError:
            yield from self._end()
            return
        self._test = test
        if report is not None:
            hook = self._config.hook
            yield hook.pytest_report_from_serializable(config=self._config, data=report)

    def _end(self) -> Iterator[pytest.TestReport]:
        self._process.join()
        self.reports_r.close()
        self.ended = True
        if code := self._process.exitcode:
            where = self._test or f"process {self._number}"
            reason = f"the process of the tests ended with exit code {code}"
            place = (where.partition("::")[0], None, where)
            yield pytest.TestReport(where, place, {}, "failed", reason, "call")

    def interrupt(self) -> None:
        """As Ctrl-C does: it leaves what its test had entered."""
        if self._process.pid is not None and self._process.is_alive():
            os.kill(self._process.pid, signal.SIGINT)
        self._process.join()


def _by_module(items: Sequence[pytest.Item]) -> list[list[pytest.Item]]:
    modules: dict[str, list[pytest.Item]] = {}
    for item in items:
        modules.setdefault(item.nodeid.partition("::")[0], []).append(item)
    return list(modules.values())


def _make_queue(count: int) -> int:
    """A pipe with the numbers below ``count``, to be read by many; at its end there is no more."""
    queue_r, queue_w = os.pipe()
    os.write(queue_w, b"".join(number.to_bytes(INDEX_BYTES) for number in range(count)))
    os.close(queue_w)
    return queue_r


# -- in the fork ------------------------------------------------------------------------------


class Sender:
    """A plugin that sends the test that runs, and each report, to the first process."""

    def __init__(self, config: pytest.Config, reports_w: Connection) -> None:
        self._config = config
        self._reports_w = reports_w
        self._test = ""
        self.failed = False

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._test = nodeid
        self._reports_w.send((nodeid, None))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.failed |= report.failed
        hook = self._config.hook
        data = hook.pytest_report_to_serializable(config=self._config, report=report)
        self._reports_w.send((self._test, data))


def _run_modules(
    session: pytest.Session,
    number: int,
    modules: Sequence[Sequence[pytest.Item]],
    queue_r: int,
    reports_w: Connection,
) -> None:
    config = session.config
    os.setpgid(0, 0)
    _leave_to_the_first_process(config, number)
    sender = Sender(config, reports_w)
    config.pluginmanager.register(sender)
    try:
        items = _take(modules, queue_r)
        item = next(items, None)
        while item is not None:
            following = next(items, None)  # what both of them share stays
            config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            item = following
        if not sender.failed:  # a test that failed leaves things open
            config._ensure_unconfigure()  # raises for what was left to the garbage collector
    except KeyboardInterrupt:
        pass
    if measured := coverage.Coverage.current():
        measured.stop()
        measured.save()


def _take(modules: Sequence[Sequence[pytest.Item]], queue_r: int) -> Iterator[pytest.Item]:
    """The tests of one module after the other, until no module is left."""
    while taken := os.read(queue_r, INDEX_BYTES):
        yield from modules[int.from_bytes(taken)]


def _leave_to_the_first_process(config: pytest.Config, number: int) -> None:
    """What only one process can do: write to the terminal, and own files by their names.

    Files that capture output are shared after a fork, with their positions; so they are made anew.
    """
    plugins = config.pluginmanager
    if capture := plugins.getplugin("capturemanager"):
        capture.stop_global_capturing()
        capture.start_global_capturing()
    if reporter := plugins.getplugin("terminalreporter"):
        reporter._tw = create_terminal_writer(config, open(os.devnull, "w"))  # noqa: SIM115
    factory = config._tmp_path_factory  # type: ignore[attr-defined]
    factory._given_basetemp = factory.getbasetemp() / f"{OWN_DIRECTORY}{number}"
    factory._basetemp = None
