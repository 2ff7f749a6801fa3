"""The command ``check``: resolve every target, verify TLS, dial every endpoint once, tell.

It starts nothing and listens on nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from supervisor.cli.console import PROGRAM
from supervisor.core.config import Config
from supervisor.core.discovery.endpoints import Discovered
from supervisor.core.discovery.resolution import Resolution
from supervisor.core.discovery.system_names import Files
from supervisor.core.exit_codes import EXIT_NO_ENDPOINT, EXIT_USAGE
from supervisor.discovery.listen_addresses import UnresolvedListenError, resolve_listen
from supervisor.discovery.resolution import BadTargetError, Targets
from supervisor.system import connections
from supervisor.system.tls import TlsClient, unverified

EXIT_USABLE = 0

MAX_CONCURRENT = 64
"""Dials under way at once."""


@dataclass(frozen=True, slots=True)
class Dial:
    """One attempt at one address; ``error`` is "" if it connected."""

    address: str
    time_s: float
    error: str = ""


@dataclass(frozen=True, slots=True)
class Checked:
    """One endpoint that may be used, and its dials, one for each address."""

    endpoint: Discovered
    dials: tuple[Dial, ...]

    @property
    def usable(self) -> bool:
        return any(not dial.error for dial in self.dials)


def run(config: Config, as_json: bool = False, files: Files | None = None) -> int:
    """Check and print; returns the exit code: 0, 2 (usage) or 69 (no endpoint can be dialed)."""
    try:
        result, checked = asyncio.run(_check(config, files))
    except (BadTargetError, UnresolvedListenError) as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return EXIT_USAGE
    if as_json:
        document = describe(config, result, checked)
        print(json.dumps(document, indent=2))
    else:
        _print_table(result, checked)
    if not result.srv and result.loops:
        name, hit = next(iter(result.loops.items()))
        print(
            f"{PROGRAM}: --endpoints {name} is the gateway's own listen address {hit},"
            " expected the address of another program",
            file=sys.stderr,
        )
        return EXIT_USAGE
    return EXIT_USABLE if any(each.usable for each in checked) else EXIT_NO_ENDPOINT


def describe(config: Config, result: Resolution, checked: tuple[Checked, ...]) -> dict[str, Any]:
    """The JSON document of ``--json``."""
    return {
        "srv": config.discovery_srv or None,
        "listen": [str(each) for each in config.listen_addr],
        "usable": sum(each.usable for each in checked),
        "endpoints": [
            {
                "endpoint": each.endpoint.name,
                "source": "srv" if each.endpoint.srv else "endpoints",
                "priority": each.endpoint.priority,
                "weight": each.endpoint.weight,
                "tls": each.endpoint.tls,
                "usable": each.usable,
                "dials": [
                    {
                        "address": dial.address,
                        "time_s": round(dial.time_s, 6),
                        "error": dial.error or None,
                    }
                    for dial in each.dials
                ],
            }
            for each in checked
        ],
        "left_out": [
            {"endpoint": name, "reason": reason} for name, reason in result.left_out.items()
        ],
        "problems": [problem.error for problem in result.problems],
    }


async def _check(config: Config, files: Files | None) -> tuple[Resolution, tuple[Checked, ...]]:
    listen = await resolve_listen(config.listen_addr, config.nameserver, files=files)
    result = await Targets(config, listen, files=files).resolve(force=True)
    slots = asyncio.Semaphore(MAX_CONCURRENT)

    async def check(endpoint: Discovered) -> Checked:
        tls = endpoint.tls or (endpoint.srv and not config.insecure_discovery)
        dials = (
            dial(address, endpoint.port, config.dial_timeout_s, slots, tls=tls)
            for address in endpoint.addresses
        )
        return Checked(endpoint, tuple(await asyncio.gather(*dials)))

    return result, tuple(await asyncio.gather(*map(check, result.endpoints)))


async def dial(
    address: str, port: int, timeout_s: float, slots: asyncio.Semaphore, *, tls: bool = False
) -> Dial:
    """Connect once and hang up; if it speaks TLS, after a handshake that is not measured."""
    loop = asyncio.get_running_loop()
    async with slots:
        started_at = loop.time()
        error = ""
        with connections.open_socket(address) as sock:
            try:
                async with asyncio.timeout(timeout_s):
                    await connections.connect(sock, address, port)
            except TimeoutError:
                error = f"timeout after {timeout_s:g} s"
            except OSError as failure:
                error = connections.words(failure)
            time_s = loop.time() - started_at
            if not error:
                await _hang_up(sock, timeout_s, tls=tls)
        return Dial(address, time_s, error)


async def _hang_up(sock: socket.socket, timeout_s: float, *, tls: bool) -> None:
    """End the connection in order: etcd logs every one that ends before its TLS handshake."""
    client = TlsClient(sock, unverified(), None) if tls else None
    if client is not None:
        with contextlib.suppress(OSError):
            async with asyncio.timeout(timeout_s):
                await client.shake_hands()
    await connections.leave(sock, client)


def _print_table(result: Resolution, checked: tuple[Checked, ...]) -> None:
    table = Table(box=box.SIMPLE, show_edge=False, pad_edge=False)
    for heading in ("ENDPOINT", "ADDRESS", "PRIORITY", "WEIGHT", "TLS", "RESULT"):
        table.add_column(heading, no_wrap=heading != "RESULT", overflow="fold")
    for each in checked:
        found = each.endpoint
        for number, one in enumerate(each.dials):
            said = one.error or f"connected in {one.time_s * 1000:.1f} ms"
            row = (found.name, one.address, str(found.priority), str(found.weight))
            row = row if number == 0 else ("", one.address, "", "")
            tls = "yes" if found.tls and number == 0 else ""
            table.add_row(*row, tls, said, style="red" if one.error else None)
    for name, reason in result.left_out.items():
        table.add_row(name, "", "", "", "", f"left out: {reason}", style="red")
    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False, markup=False)
    if table.row_count:
        console.print(table)
    for problem in result.problems:
        console.print(f"problem: {problem.error}", style="yellow")
    usable = sum(each.usable for each in checked)
    console.print(f"{usable} of {len(checked) + len(result.left_out)} endpoints can be used")
