"""The stage of the demo: starts everything in order, shows it, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from supervisor.demo.backends import (
    HOST,
    NAMES,
    WHO_GREETS,
    WHO_IS_MEMBER,
    Backend,
    Reservation,
    ask,
    plan_greeters,
    plan_members,
)
from supervisor.demo.children import Child
from supervisor.demo.installation import fetch_command, gateway_command, typed_command
from supervisor.demo.nameserver import Nameserver, Record, compose_zone
from supervisor.demo.ports import (
    ADMIN_PORT,
    LISTEN_PORT,
    check_loopback,
    choose_port,
    claim_usual_ports,
)
from supervisor.demo.tour import Tour
from supervisor.system.tasks import run_in_loop

_DOMAIN = "cluster.test"  # .test is reserved for this (RFC 6761)
_OWNER = "_etcd-client._tcp"
_TTL_S = 5  # the least that the gateway follows
_START_LIMIT_S = 30.0
_STOP_LIMIT_S = 5.0
_RESTART_AFTER_S = 5.0
_POLL_S = 0.05
_WORKERS = 2
_READY = "ready to proxy client requests"
_LOG_KEYS_LEFT_OUT = {"ts", "level", "msg", "pid", "gen"}


class DemoError(Exception):
    """The demo cannot go on; the text is the one line that the user sees."""


def perform(*, etcd: bool, once: bool) -> int:
    """See ``supervisor.demo.run``."""
    program = shutil.which("etcd") if etcd else None
    if etcd and program is None:
        print(
            "etcd-gateway demo: --etcd needs the etcd program and found none on PATH"
            " (Debian: apt install etcd-server); without --etcd the demo needs nothing",
            file=sys.stderr,
        )
        return 2
    with tempfile.TemporaryDirectory(prefix="etcd-gateway-demo-") as directory:
        try:
            check_loopback()
            stage = _Stage(Path(directory), program)
            return run_in_loop(lambda: stage.play(once=once))
        except (DemoError, OSError) as error:
            print(f"etcd-gateway demo: {error}", file=sys.stderr)
            return 1


class _Stage:
    """Owns the children, the nameserver, the reserved ports and the files in ``directory``."""

    def __init__(self, directory: Path, etcd: str | None) -> None:
        self._directory = directory
        self._reservation = Reservation(2 * len(NAMES))
        ports = self._reservation.ports
        if etcd is None:
            self._backends = plan_greeters(ports[: len(NAMES)])
            self._question = WHO_GREETS
        else:
            self._backends = plan_members(etcd, ports, directory)
            self._question = WHO_IS_MEMBER
        self._etcd = etcd is not None
        weights = (2, 1, 1)
        self._records = tuple(
            Record(backend.name, backend.port, int(backend.name == NAMES[-1]), weight)
            for backend, weight in zip(self._backends, weights, strict=True)
        )
        self._zone_file = directory / f"{_DOMAIN}.zone"
        self._nameserver = Nameserver(_DOMAIN, self._zone_file, self._say)
        self._children: dict[str, Child] = {}
        self._gateway: Child | None = None
        self._names: dict[str, str] = {}
        self._listen_port = 0
        self._claim: socket.socket | None = None
        self._ready = asyncio.Event()
        self._leave = asyncio.Event()
        self._leaving = False
        self._failure = ""
        self._env = {k: v for k, v in os.environ.items() if not k.startswith(("GATEWAY_", "ETCD_"))}

    async def play(self, *, once: bool) -> int:
        """Show until the show is over or a signal comes; the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            loop.add_signal_handler(number, self._leave.set)
        show = asyncio.create_task(self._show(once), name="show")
        leave = asyncio.create_task(self._leave.wait(), name="leave")
        try:
            await asyncio.wait({show, leave}, return_when=asyncio.FIRST_COMPLETED)
            if show.done():
                return show.result()
            if self._failure:
                raise DemoError(self._failure)
            return 0
        finally:
            await self._strike(show, leave)

    async def _show(self, once: bool) -> int:
        self._say("etcd-gateway demo: everything on loopback, gone when you press Ctrl-C\n")
        for backend in self._backends:
            self._start_backend(backend)
        for backend in self._backends:
            identity = await self._first_answer(backend.port, f"{backend.name} serves no clients")
            self._names[identity] = backend.name
        self._write_zone()
        dns_port = await self._nameserver.start()
        admin_port = await self._start_gateway(dns_port)
        try:
            async with asyncio.timeout(_START_LIMIT_S):
                await self._ready.wait()
        except TimeoutError:
            raise DemoError(f"the gateway is not ready after {_START_LIMIT_S:g} s") from None
        self._introduce(dns_port)
        held = await self._tour().guide()
        if once:
            return 0 if held else 1
        self._suggest(admin_port)
        await asyncio.Event().wait()
        return 0

    def _start_backend(self, backend: Backend) -> None:
        loop = asyncio.get_running_loop()

        def restart() -> None:
            if not self._leaving:
                self._start_backend(backend)
                self._say(f"{backend.name} is back (pid {self._children[backend.name].pid})")

        def note_exit(status: int) -> None:
            if not self._leaving:
                how = f"signal {-status}" if status < 0 else f"status {status}"
                again = f"it is started again in {_RESTART_AFTER_S:g} s"
                self._say(f"{backend.name} ended ({how}); {again}")
                loop.call_later(_RESTART_AFTER_S, restart)

        log = self._directory / f"{backend.name}.log"
        self._children[backend.name] = Child.launch(
            backend.argv, log=log, env=self._env, on_exit=note_exit
        )

    async def _start_gateway(self, dns_port: int) -> int:
        self._claim = claim_usual_ports()
        alone = self._claim is not None
        self._listen_port = choose_port(LISTEN_PORT if alone else 0)
        admin_port = choose_port(ADMIN_PORT if alone else 0)
        flags = [
            f"--discovery-srv={_DOMAIN}",
            "--insecure-discovery",
            f"--nameserver={HOST}:{dns_port}",
            f"--listen-addr={HOST}:{self._listen_port}",
            f"--admin-addr={HOST}:{admin_port}",
            f"--workers={_WORKERS}",
        ]
        self._say("$ etcd-gateway start " + " ".join(flags))
        quiet = ["--log-format=json", "--drain-timeout=1s"]
        self._gateway = Child.launch(
            [*gateway_command(), "start", *flags, *quiet],
            log=None,
            env=self._env,
            on_exit=self._note_gateway_exit,
        )
        await self._gateway.read_lines(self._relay_log)
        return admin_port

    def _note_gateway_exit(self, status: int) -> None:
        if not self._leaving:
            self._failure = f"the gateway ended with status {status}"
            self._leave.set()

    def _relay_log(self, line: str) -> None:
        """Print a line of the gateway's log as people like to read it."""
        try:
            entry = json.loads(line)
            known = {k: v for k, v in entry.items() if k not in _LOG_KEYS_LEFT_OUT}
            extra = " ".join(f"{key}={_brief(value)}" for key, value in known.items())
            text = f"{entry['msg']}  {extra}"
            if entry["msg"] == _READY:
                self._ready.set()
        except (ValueError, KeyError, AttributeError):
            text = line
        self._say(f"  gateway | {text.rstrip()}")

    async def _first_answer(self, port: int, complaint: str) -> str:
        loop = asyncio.get_running_loop()
        end_at = loop.time() + _START_LIMIT_S
        while (identity := await ask(port, self._question)) is None:
            if loop.time() > end_at:
                raise DemoError(f"{complaint} within {_START_LIMIT_S:g} s")
            await asyncio.sleep(_POLL_S)
        return identity

    def _introduce(self, dns_port: int) -> None:
        self._say("")
        for record in self._records:
            self._say(
                f"  {record.target}   {HOST}:{record.port}  pid {self._children[record.target].pid}"
                f"  priority {record.priority}, weight {record.weight}"
            )
        assert self._gateway is not None  # noqa: S101 - started before
        self._say(f"  gateway  {HOST}:{self._listen_port}  pid {self._gateway.pid}")
        self._say(f"  DNS      {HOST}:{dns_port}  zone file {self._zone_file}\n")

    def _tour(self) -> Tour:
        return Tour(
            ask=self._ask_gateway,
            promote=self._promote,
            kill=self._kill,
            say=self._say,
            preferred=NAMES[:-1],
            standby=NAMES[-1],
            victim=NAMES[0],
        )

    async def _ask_gateway(self) -> str | None:
        identity = await ask(self._listen_port, self._question)
        return None if identity is None else self._names.get(identity, identity)

    def _promote(self) -> str:
        *others, standby = self._records
        self._records = (*others, replace(standby, priority=0))
        self._write_zone()
        return f"{standby.target} moves from priority {standby.priority} to 0"

    async def _kill(self, name: str) -> int:
        child = self._children[name]
        await child.kill()
        return child.pid

    def _write_zone(self) -> None:
        draft = self._zone_file.with_suffix(".draft")
        draft.write_text(compose_zone(_DOMAIN, _OWNER, self._records, ttl_s=_TTL_S))
        draft.rename(self._zone_file)

    def _suggest(self, admin_port: int) -> None:
        listen, admin = f"{HOST}:{self._listen_port}", f"{HOST}:{admin_port}"
        if self._etcd:
            first = [
                f"etcdctl --endpoints={listen} put greeting hello",
                f"etcdctl --endpoints={listen} watch greeting",
            ]
        else:
            fetch = fetch_command(f"http://{listen}/")
            first = [fetch, f"for i in $(seq 12); do {fetch}; done"]
        victim = self._children[NAMES[1]].pid
        hints = [
            *((line, "") for line in first),
            (f"kill -9 {victim}", f"{NAMES[1]} crashes; no client notices"),
            (f"${{EDITOR:-vi}} {self._zone_file}", f"DNS is followed within {_TTL_S} s"),
            (f"{typed_command()} status --admin-addr={admin}", ""),
            (f"http://{admin}/", "the status page, in a browser"),
        ]
        self._say("\nYour turn, in another terminal (Ctrl-C here ends it all):\n")
        for command, meaning in hints:
            self._say(f"  {command}" + (f"   # {meaning}" if meaning else ""))
        self._say("")

    def _say(self, text: str) -> None:
        try:
            print(text, flush=True)
        except BrokenPipeError:
            # The reader has gone: leave, and let nothing more be written at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            self._leave.set()

    async def _strike(self, *tasks: asyncio.Task[object]) -> None:
        """End everything: first the gateway, then what it talks to."""
        self._leaving = True
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._gateway is not None:
            await self._gateway.stop(_STOP_LIMIT_S)
        backends = [child.kill() for child in self._children.values()]
        await asyncio.gather(*backends)
        self._nameserver.close()
        self._reservation.close()
        if self._claim is not None:
            self._claim.close()


def _brief(value: object) -> str:
    """A value of a log line, without the brackets and quotes of a list."""
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
