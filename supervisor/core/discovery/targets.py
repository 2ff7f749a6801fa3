"""Targets: where operators say that endpoints are to be found, as questions to DNS."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.core.address import HostPort, literal_ip
from gateway.core.records import dataclass
from supervisor.core.config import Config, StaticTarget
from supervisor.core.discovery.questions import Question, QuestionKind


@dataclass(frozen=True, slots=True)
class Owner:
    """An SRV owner name to ask for; ``tls`` if its endpoints are said to speak TLS."""

    name: str
    tls: bool

    @property
    def question(self) -> Question:
        return Question(QuestionKind.SRV, self.name)


def owners(config: Config) -> tuple[Owner, ...]:
    """The SRV names of ``--discovery-srv``; none if it is not set."""
    domain = config.discovery_srv.lower().removesuffix(".")
    if not domain:
        return ()
    if domain.startswith("_"):
        return (Owner(domain, tls="-ssl-" in domain.partition(".")[0] + "-"),)
    suffix = f"-{config.discovery_srv_name.lower()}" if config.discovery_srv_name else ""
    return (
        Owner(f"_etcd-client-ssl{suffix}._tcp.{domain}", tls=True),
        Owner(f"_etcd-client{suffix}._tcp.{domain}", tls=False),
    )


def describe_targets(config: Config) -> str:
    """What operators say of where endpoints are to be found; a member list belongs to it.

    The order does not count: templates write the same endpoints in any.
    """
    named = sorted(f"{each.address} {each.tls}" for each in config.endpoints)
    return " ".join([*named, config.discovery_srv, config.discovery_srv_name])


def tls_domain(config: Config) -> str:
    """The name that certificates of endpoints found by SRV must be valid for."""
    labels = config.discovery_srv.lower().removesuffix(".").split(".")
    while labels and labels[0].startswith("_"):
        labels.pop(0)
    return ".".join(labels)


def describe_tls_check(config: Config) -> str:
    """What the verdicts of the TLS check depend on; "" if endpoints found by SRV need not pass it.

    Who passed has passed this check, and no other one.
    """
    if config.insecure_discovery or not owners(config):
        return ""
    dialing = [*sorted(config.source_addr), config.proxy_out]
    return " ".join([tls_domain(config), config.trusted_ca_file or "system", *dialing])


def host_question(address: HostPort) -> Question:
    """How to look up a name as an operator wrote it: a trailing dot makes it absolute."""
    return Question(QuestionKind.HOST if address.absolute else QuestionKind.SEARCH, address.host)


def static_questions(config: Config) -> tuple[Question, ...]:
    """The hosts of ``--endpoints`` that are names."""
    addresses = [target.address for target in static_targets(config)]
    hosts = [each for each in addresses if isinstance(each, HostPort)]
    names = (each for each in hosts if literal_ip(each.host) is None)
    return tuple(dict.fromkeys(map(host_question, names)))


def static_targets(config: Config) -> Iterable[StaticTarget]:
    """The targets of ``--endpoints``; of one given with and without a trailing dot the former."""
    absolute = {str(each.address) for each in config.endpoints if _is_absolute(each)}
    return (
        each for each in config.endpoints if _is_absolute(each) or str(each.address) not in absolute
    )


def _is_absolute(target: StaticTarget) -> bool:
    return isinstance(target.address, HostPort) and target.address.absolute
