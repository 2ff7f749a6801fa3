"""What the meanings of replies are for a question: SRV records, or the addresses of a host."""

from __future__ import annotations

from collections.abc import Mapping

from supervisor.core.discovery.questions import Answer, Failure, Negative, Outcome, SrvRecord
from supervisor.core.discovery.replies import Meaning

_TYPES = {4: "A", 6: "AAAA"}


def srv_record(data: str) -> SrvRecord:
    """The data of an SRV record: ``priority weight port target``."""
    priority, weight, port, target = data.split(" ", 3)
    target = "" if target == "." else target
    return SrvRecord(int(priority), int(weight), int(port), target)


def srv_outcome(meaning: Meaning) -> Outcome:
    """The outcome of an SRV question that was answered with records."""
    records = tuple(srv_record(record.data) for record in meaning.records)
    if all(not record.target for record in records):
        return Negative('target ".": the service is decidedly not available', meaning.ttl_s)
    return Answer(meaning.ttl_s, records=records)


def is_decisive(v4: Meaning | Negative | Failure | None) -> bool:
    """Whether the outcome of A says all that matters, should AAAA not be answered."""
    return isinstance(v4, Meaning) or (isinstance(v4, Negative) and v4.no_name)


def join_families(outcomes: Mapping[int, Meaning | Negative | Failure]) -> Outcome:
    """One outcome of A (4) and AAAA (6): what is there counts, whatever became of the other.

    A name that does not exist needs no reply about AAAA. It does about A: there are nameservers
    that say NXDOMAIN to AAAA of a name that has A records (RFC 4074, 4.2).
    """
    found = {v: each for v, each in outcomes.items() if isinstance(each, Meaning)}
    failed = {v: each for v, each in outcomes.items() if isinstance(each, Failure)}
    if found:
        return Answer(
            min(each.ttl_s for each in found.values()),
            addresses=tuple(r.data for each in found.values() for r in each.records),
            unanswered=frozenset(failed),
            error="; ".join(f"{_TYPES[v]}: {each.error}" for v, each in failed.items()),
        )
    if is_decisive(v4 := outcomes.get(4)) and isinstance(v4, Negative):
        return Negative(v4.error, v4.ttl_s)
    if failed:
        text = "; ".join(dict.fromkeys(each.error for each in failed.values()))
        return Failure(text, silent=any(each.silent for each in failed.values()))
    negatives = [each for each in outcomes.values() if isinstance(each, Negative)]
    same = len({each.error for each in negatives}) == 1
    error = negatives[0].error if same else "no addresses"
    return Negative(error, min(each.ttl_s for each in negatives))
