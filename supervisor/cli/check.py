"""The command ``check``: everything that ``start`` would find, without starting anything.

It resolves every target, verifies TLS, dials every endpoint once, probes those whose health check
is more than a dial, and tries whether the gateway's own addresses, workers and descriptors are to
be had. It listens on nothing.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import field
from typing import Any

from gateway.core.address import Address
from gateway.core.records import dataclass
from supervisor.cli import etcd_tables
from supervisor.cli.console import report
from supervisor.cli.dials import Checked, dial_all
from supervisor.cli.etcd_members import Examiner
from supervisor.cli.followed_members import follow_members
from supervisor.cli.own_addresses import Availability, OwnAddress, try_admin, try_listen
from supervisor.cli.probes import Unhealthy, probe_all
from supervisor.cli.tables import Cell, Output, Part, line, make_table, stack
from supervisor.core.config import Config
from supervisor.core.discovery.cluster_report import ClusterReport
from supervisor.core.discovery.endpoints import Source as EndpointSource
from supervisor.core.discovery.explanation import Branch
from supervisor.core.discovery.resolution import Resolution
from supervisor.core.discovery.system_names import Files
from supervisor.core.effective import EffectiveValue, Source, to_document
from supervisor.core.exit_codes import EXIT_FAILURE, EXIT_NO_ENDPOINT, EXIT_OK, EXIT_USAGE
from supervisor.core.printable import escape_unprintable
from supervisor.discovery.listen_addresses import UnresolvedListenError, resolve_listen
from supervisor.discovery.means import Means
from supervisor.discovery.targets import BadTargetError, Targets
from supervisor.system import kernel_calls, limits
from supervisor.system.connections import dial_as, find_foreign_source
from supervisor.system.tasks import run_in_loop

VALUE_CHARACTERS = 60
"""A list that is longer takes several lines in the table of the configuration."""

VALUE_LINES = 20
"""A list of more has the rest in the document: networks in ``--allow`` may be thousands."""


_SOURCES = {
    EndpointSource.FLAG: "endpoints",
    EndpointSource.SRV: "srv",
    EndpointSource.MEMBERS: "members",
}


@dataclass(slots=True)
class Findings:
    """What was found. ``obstacles`` are reasons why a start would exit 1, one line each."""

    resolution: Resolution
    checked: tuple[Checked, ...] = ()
    own: list[OwnAddress] = field(default_factory=list)
    workers: int = 0
    open_files: int = 0
    obstacles: list[str] = field(default_factory=list)
    explanation: tuple[Branch, ...] = ()
    """With ``--explain``: the chain from each target to its addresses."""
    of_the_list: Sequence[str] = ()
    """What is wrong with following the member list."""
    unhealthy: tuple[Unhealthy, ...] = ()
    """What can be dialed and will be inactive."""
    drained: tuple[str, ...] = ()
    """The names in ``--drain-endpoints``."""
    cluster: ClusterReport | None = None
    """What the members say, if the endpoints are etcd."""

    @property
    def problems(self) -> list[str]:
        """What is wrong, and leaves the gateway with less than was asked for."""
        problems = [problem.error for problem in self.resolution.problems]
        rows = self.cluster.rows if self.cluster is not None else ()
        told = {name for row in rows if row.error for name in row.endpoints}
        problems += [str(each) for each in self.unhealthy if each.endpoint not in told]
        return [*problems, *self.of_the_list, *self._drain_problems()]

    def _drain_problems(self) -> list[str]:
        """Names that no endpoint has, which may be misspelled; or that none is left for clients."""
        names = {each.endpoint.name for each in self.checked}
        if not names or not self.drained:
            return []
        known = names | self.resolution.left_out.keys()
        unknown = [each for each in self.drained if each not in known]
        problems = (
            [f"no such endpoint in --drain-endpoints: {', '.join(unknown)}"] if unknown else []
        )
        if names <= set(self.drained):
            problems.append("every endpoint is in --drain-endpoints, so no client will be served")
        return problems


def run(
    config: Config, as_json: bool = False, explain: bool = False, files: Files | None = None
) -> int:
    """Check and print. The exit code: 0, or what ``start`` would exit with (1, 2 or 69)."""
    try:
        found = run_in_loop(lambda: _find(config, files, explain=explain))
    except BadTargetError as error:
        report(str(error))
        return EXIT_USAGE
    if as_json:
        print(json.dumps(describe(config, found), indent=2))
    else:
        Output().print(_render(config, found))
        for tree in found.explanation:
            print("", *map(escape_unprintable, tree.lines()), sep="\n")
    sys.stdout.flush()
    if found.resolution.names_itself:
        report(found.resolution.names_itself)
        return EXIT_USAGE
    for obstacle in found.obstacles:
        report(obstacle)
    if found.obstacles:
        return EXIT_FAILURE
    return EXIT_OK if any(each.usable for each in found.checked) else EXIT_NO_ENDPOINT


async def _find(config: Config, files: Files | None, *, explain: bool) -> Findings:
    dial_as(config)
    refused = kernel_calls.find_missing_call()
    unpinnable = kernel_calls.find_unpinnable() if config.pin_workers else ""
    obstacles = [each for each in (refused, unpinnable, find_foreign_source(config)) if each]
    try:
        listen = await resolve_listen(config.listen_addr, config.nameserver, files=files)
    except UnresolvedListenError as error:
        listen = ()
        obstacles.append(str(error))
    targets = Targets(config, listen, Means(files=files or Files()), traced=explain)
    resolution = await targets.resolve(force=True)
    resolution, told, of_the_list = await follow_members(config, targets, resolution, listen)
    found = Findings(
        resolution,
        await dial_all(config, resolution.endpoints),
        obstacles=obstacles,
        of_the_list=of_the_list,
        drained=config.drain_endpoints,
    )
    examiner = Examiner(config, listen, targets.look_up)
    found.cluster, found.unhealthy = await asyncio.gather(
        examiner.examine(found.checked), probe_all(config, found.checked)
    )
    if explain:
        dialed = {
            each.endpoint.name: {dial.address: dial.said for dial in each.dials}
            for each in found.checked
        }
        found.explanation = (*targets.explain(resolution, dialed), *told)
    _look_at_own_side(config, listen, found)
    return found


def _look_at_own_side(config: Config, listen: Sequence[Address], found: Findings) -> None:
    """Whether its addresses, workers and descriptors are to be had."""
    found.own = [try_listen("listen-addr", each) for each in listen]
    found.own += map(try_admin, config.admin_addr)
    found.obstacles += [
        f"--{each.flag} {each.address}: cannot listen there: {each.error}"
        for each in found.own
        if each.availability is Availability.UNUSABLE
    ]
    found.open_files = limits.raise_open_files()
    found.workers = limits.given_workers(config.workers)
    if obstacle := limits.find_obstacle(
        found.open_files, workers=found.workers, listen=max(len(listen), 1)
    ):
        found.obstacles.append(obstacle)


def describe(config: Config, found: Findings) -> dict[str, Any]:
    """The JSON document of ``--json``."""
    return {
        "srv": config.discovery_srv or None,
        "listen": [str(each) for each in config.listen_addr],
        "usable": sum(each.usable for each in found.checked),
        "endpoints": [_describe_endpoint(each) for each in found.checked],
        "left_out": [
            {"endpoint": name, "reason": reason}
            for name, reason in found.resolution.left_out.items()
        ],
        "problems": found.problems,
        "etcd": etcd_tables.describe(found.cluster),
        "explanation": [tree.document() for tree in found.explanation],
        "own_addresses": [_describe_own(each) for each in found.own],
        "obstacles": found.obstacles,
        "workers": found.workers,
        "open_files": found.open_files,
        "configuration": to_document(config.effective),
    }


def _describe_endpoint(checked: Checked) -> dict[str, Any]:
    endpoint = checked.endpoint
    return {
        "endpoint": endpoint.name,
        "source": _SOURCES[endpoint.source],
        "priority": endpoint.priority,
        "weight": endpoint.weight,
        "tls": endpoint.tls,
        "usable": checked.usable,
        "dials": [
            {
                "address": dial.address,
                "time_s": round(dial.time_s, 6),
                "error": dial.error or None,
            }
            for dial in checked.dials
        ],
    }


def _describe_own(own: OwnAddress) -> dict[str, Any]:
    return {
        "flag": own.flag,
        "address": own.address,
        "state": own.availability.value,
        "error": own.error or None,
        "pid": own.pid or None,
    }


def _render(config: Config, found: Findings) -> Part:
    """The configuration, the gateway's own side, then the endpoints."""
    parts: list[Part] = []
    if given := [each for each in config.effective if each.source is not Source.DEFAULT]:
        rows = [row for each in given for row in _value_rows(each)]
        head: tuple[str, ...] = ("FLAG", "VALUE", "FROM")
        parts += [make_table(head, rows, left=head, names=2), ""]
    parts += map(_own_line, found.own)
    workers = f"workers: {found.workers}" + ("" if config.workers else " (one per CPU)")
    parts += [line(f"{workers}, limit of open files: {found.open_files}"), ""]
    if rows_of_endpoints := _endpoint_rows(found):
        head = ("ENDPOINT", "ADDRESS", "PRIORITY", "WEIGHT", "TLS")
        parts.append(make_table(head, rows_of_endpoints, left=head, last="RESULT", names=2))
    parts += [line(f"problem: {problem}", style="yellow") for problem in found.problems]
    if found.cluster is not None:
        parts += etcd_tables.render(found.cluster)
    usable = sum(each.usable for each in found.checked)
    known = len(found.checked) + len(found.resolution.left_out)
    return stack([*parts, line(f"{usable} of {known} endpoints can be used")])


def _own_line(own: OwnAddress) -> Part:
    where = f"{own.flag} {own.address}: "
    match own.availability:
        case Availability.FREE:
            return line(where, "free")
        case Availability.RUNNING:
            return line(where, f"in use by the running gateway, pid {own.pid}", style="yellow")
        case Availability.UNUSABLE:
            return line(where, own.error, style="red")


def _endpoint_rows(found: Findings) -> list[list[Cell]]:
    rows: list[list[Cell]] = []
    for each in found.checked:
        endpoint = each.endpoint
        name = [endpoint.name, str(endpoint.priority), str(endpoint.weight)]
        for dial in each.dials:
            tls = "yes" if endpoint.tls and name[0] else ""
            result = line(dial.said, style="red") if dial.error else dial.said
            rows.append([name[0], dial.address, *name[1:], tls, result])
            name = ["", "", ""]
    for left, reason in found.resolution.left_out.items():
        rows.append([left, "", "", "", "", line(f"left out: {reason}", style="red")])
    return rows


def _value_rows(each: EffectiveValue) -> list[tuple[str, str, str]]:
    """A value as it is; a long list in lines that end behind its commas."""
    lines: list[str] = []
    left = each.value
    while len(left) > VALUE_CHARACTERS and len(lines) < VALUE_LINES:
        end = left.rfind(",", 0, VALUE_CHARACTERS) + 1 or left.find(",") + 1
        if not end:
            break
        lines.append(left[:end])
        left = left[end:]
    if len(lines) == VALUE_LINES:
        left = f"... {left.count(',') + 1} more, see --json"
    first, *more = [*lines, left]
    return [(each.flag, first, each.source.value), *(("", text, "") for text in more)]
