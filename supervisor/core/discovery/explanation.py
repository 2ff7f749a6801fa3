"""The chain from each target to the addresses that are dialed, as a tree of sentences and facts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from typing import Any

from gateway.core.address import Address, HostPort, literal_ip
from gateway.core.records import dataclass
from gateway.core.unix_address import UnixAddress
from supervisor.core.config import Config
from supervisor.core.discovery.endpoints import record_problem
from supervisor.core.discovery.questions import (
    Answer,
    Failure,
    Lookup,
    Negative,
    Question,
    SrvRecord,
)
from supervisor.core.discovery.resolution import Resolution
from supervisor.core.discovery.targets import host_question, owners
from supervisor.core.discovery.trace import Exchange, FromHosts, Step

INDENT = "  "


@dataclass(frozen=True, slots=True)
class Branch:
    """One line of the tree; ``facts`` is the same for programs."""

    text: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    children: tuple[Branch, ...] = ()

    def lines(self, depth: int = 0) -> Iterator[str]:
        """The tree as indented text."""
        yield INDENT * depth + self.text
        for child in self.children:
            yield from child.lines(depth + 1)

    def document(self) -> dict[str, Any]:
        """The tree as values that JSON can carry."""
        whole: dict[str, Any] = {"text": self.text, **self.facts}
        if self.children:
            whole["children"] = [child.document() for child in self.children]
        return whole


@dataclass(frozen=True, slots=True)
class Story:
    """Everything that is known of one resolution.

    ``lookup``: what is held of each question. ``steps``: what was done for each question.
    ``dialed``: by endpoint name, its addresses with what dialing them gave.
    """

    config: Config
    lookup: Lookup
    steps: Mapping[Question, Sequence[Step]]
    resolution: Resolution
    dialed: Mapping[str, Mapping[str, str]]

    def tell(self) -> tuple[Branch, ...]:
        """A tree for each target, in the order in which they are asked."""
        trees = [self._owner(owner.question) for owner in owners(self.config)]
        if not trees or self.config.endpoints_given:
            trees += [self._static(target.address) for target in self.config.endpoints]
        return tuple(trees)

    def _owner(self, question: Question) -> Branch:
        children = list(self._steps(question))
        outcome = self.lookup(question)
        if isinstance(outcome, Answer):
            children += [self._record(record) for record in outcome.records]
        else:
            children.append(_no_answer(outcome))
        return Branch(str(question), {"question": str(question)}, tuple(children))

    def _record(self, record: SrvRecord) -> Branch:
        target = record.target or "."
        text = f"record {record.priority} {record.weight} {record.port} {target}"
        facts = {
            "priority": record.priority,
            "weight": record.weight,
            "port": record.port,
            "target": target,
        }
        if reason := record_problem(record):
            left_out = Branch(f"left out: {reason}", {"left_out": reason})
            return Branch(text, facts, (left_out,))
        return Branch(text, facts, tuple(self._host(record.address)))

    def _static(self, address: Address) -> Branch:
        text, facts = f"--endpoints {address}", {"target": str(address)}
        if self.resolution.srv:
            reason = "not needed, the SRV records have endpoints"
            return Branch(text, facts, (Branch(reason, {"left_out": reason}),))
        if isinstance(address, UnixAddress):
            return Branch(text, facts, (self._endpoint(str(address)),))
        return Branch(text, facts, tuple(self._host(address)))

    def _host(self, address: HostPort) -> Iterator[Branch]:
        """How the host's addresses were found, and the endpoint that they make."""
        question = host_question(address)
        if literal_ip(address.host) is None:
            children = list(self._steps(question))
            outcome = self.lookup(question)
            if not isinstance(outcome, Answer):
                children.append(_no_answer(outcome))
            yield Branch(str(question), {"question": str(question)}, tuple(children))
            if not isinstance(outcome, Answer):
                return
        yield self._endpoint(str(address))

    def _endpoint(self, name: str) -> Branch:
        children = []
        if reason := self.resolution.left_out.get(name):
            children.append(Branch(f"left out: {reason}", {"left_out": reason}))
        if reason := self.resolution.partly_used.get(name):
            children.append(Branch(f"an address is left out: {reason}", {"partly_used": reason}))
        children += [
            Branch(f"{address}: {said}", {"address": address, "dial": said})
            for address, said in self.dialed.get(name, {}).items()
        ]
        return Branch(f"endpoint {name}", {"endpoint": name}, tuple(children))

    def _steps(self, question: Question) -> Iterable[Branch]:
        return map(_step, self.steps.get(question, ()))


def _no_answer(outcome: Negative | Failure | None) -> Branch:
    match outcome:
        case Negative(error):
            text = f"a definite no: {error}"
        case Failure(error):
            text = f"a failure, asked again: {error}"
        case _:
            text = "not asked"
    return Branch(text, {"no_answer": text})


def _step(step: Step) -> Branch:
    if isinstance(step, FromHosts):
        text = f"{step.name} in {step.path}: {', '.join(step.addresses)}"
        facts: dict[str, Any] = {
            "name": step.name,
            "file": step.path,
            "records": list(step.addresses),
        }
        return Branch(text, facts)
    return Branch(_exchange_text(step), _exchange_facts(step), tuple(map(Branch, step.records)))


def _exchange_text(step: Exchange) -> str:
    how = "TCP" if step.tcp else "UDP"
    text = f"{step.kind} {step.name} from {step.server} over {how}"
    text += "" if step.edns else " without EDNS"
    text += f": {step.said}"
    if step.flags:
        text += f", flags {' '.join(step.flags)}"
    if step.ttl_s is not None:
        text += f", TTL {step.ttl_s:g} s"
    return f"{text}, {step.took_s * 1000:.1f} ms"


def _exchange_facts(step: Exchange) -> dict[str, Any]:
    return {
        "name": step.name,
        "type": step.kind,
        "server": step.server,
        "transport": "tcp" if step.tcp else "udp",
        "edns": step.edns,
        "said": step.said,
        "flags": list(step.flags),
        "ttl_s": step.ttl_s,
        "took_s": round(step.took_s, 6),
    }
