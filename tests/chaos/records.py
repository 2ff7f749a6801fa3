"""What happened: disturbances, what clients did, and what of it must not have been."""

from __future__ import annotations

from dataclasses import dataclass, field

SETTLE_S = 10.0
"""After a disturbance, what it began may still end: probes, dials and retransmissions are due."""

CUT_BY = ("cuts", "kills_member", "all_down")
"""What may end a connection to etcd without an answer."""

YOUNG_S = 5.0
"""A worker that dies may leave a session that young looking as if it had ended in order
(docs/known-issues.md says one second; a busy host is late)."""


@dataclass(slots=True)
class Disturbance:
    """``cuts``: sessions may end by it. ``kills``: a worker died. ``hangs_up``: an endpoint died,
    for which the kernel ends streams in order. ``kills_member``: of etcd; its connections end.
    ``all_down``: no endpoint was there.

    Times are those of the wall clock, as in the log; ``ended_at`` 0: it goes on.
    """

    name: str
    began_at: float
    cuts: bool = False
    kills: bool = False
    hangs_up: bool = False
    kills_member: bool = False
    all_down: bool = False
    ended_at: float = 0.0
    recovered_s: float | None = None

    def overlaps(self, first: float, last: float) -> bool:
        return self.began_at <= last and (not self.ended_at or self.ended_at + SETTLE_S >= first)


@dataclass(slots=True)
class Stream:
    """One echo stream: how far it came, and how it ended."""

    number: int
    began_at: float
    wanted: int
    echoed: int = 0
    ended_at: float = 0.0
    end: str = ""
    """``whole``, ``refused`` (by the kernel), ``cut``, ``early`` (an orderly end too soon),
    ``stalled``, ``wrong`` (a byte that is not the one that was due)."""


@dataclass(slots=True)
class Write:
    """One put; ``revision`` 0: not acknowledged, it may or may not be there.

    ``end``: ``answered`` (well, or by etcd that it cannot), ``late``, ``refused`` (by the kernel),
    ``cut`` (the connection ended without an answer).
    """

    key: str
    value: str
    began_at: float
    revision: int = 0
    ended_at: float = 0.0
    end: str = ""


@dataclass(slots=True)
class Records:
    disturbances: list[Disturbance] = field(default_factory=list)
    streams: list[Stream] = field(default_factory=list)
    writes: list[Write] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)

    def judge_stream(self, stream: Stream) -> None:
        """Note what must not have happened to it."""
        match stream.end:
            case "whole":
                return
            case "cut":
                if self._is_explained(stream, "cuts"):
                    return
            case "early":
                young = stream.ended_at - stream.began_at < YOUNG_S
                if self._is_explained(stream, "hangs_up") or (
                    young and self._is_explained(stream, "kills")
                ):
                    return
        self.violations.append(f"a stream: {stream}")

    def judge_connection(self, write: Write) -> None:
        """Note a connection to etcd that failed by itself: no election of etcd does that."""
        if write.end == "refused" or (
            write.end == "cut" and not any(self._is_explained(write, by) for by in CUT_BY)
        ):
            self.violations.append(f"a connection to etcd: {write}")

    def _is_explained(self, stream: Stream | Write, by: str) -> bool:
        return any(
            getattr(each, by) and each.overlaps(stream.began_at, stream.ended_at)
            for each in self.disturbances
        )

    def judge_refusal(self, at: float, line: str) -> None:
        """The gateway closed a client without an endpoint: only while there was none."""
        for each in self.disturbances:
            if each.all_down and each.overlaps(at, at):
                return
        self.violations.append(f"a client was closed without an endpoint: {line}")

    def judge_writes(self, present: dict[str, str]) -> None:
        """Every acknowledged write is there, and revisions of one client only grow."""
        newest: dict[str, int] = {}
        for write in self.writes:
            if not write.revision:
                continue
            if present.get(write.key) != write.value:
                self.violations.append(f"acknowledged, and not there: {write}")
            client = write.key.partition("-")[0]
            if write.revision <= newest.get(client, 0):
                self.violations.append(f"an older revision after a newer one: {write}")
            newest[client] = write.revision


def histogram(values: list[float]) -> str:
    """Recovery times in words."""
    lines, bounds = [], (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, float("inf"))
    low = 0.0
    for high in bounds:
        count = sum(low <= value < high for value in values)
        label = f"{low:g} .. {high:g} s" if high < float("inf") else f"over {low:g} s"
        lines.append(f"  {label:>14}  {count:5}  {'#' * min(count, 60)}")
        low = high
    return "\n".join(lines)
