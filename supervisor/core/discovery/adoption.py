"""Adoption: whether a member list that was heard becomes the list that endpoints follow.

A list is adopted only if a majority of its started voting members can be dialed from here, and
never silently if it is of another cluster. The last adopted list outlives every failure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import field

from gateway.core.records import dataclass
from supervisor.core.backoff import Draw
from supervisor.core.discovery.member_list import MemberList, MemberTarget, targets_of
from supervisor.core.discovery.seed_votes import SeedVotes

MAX_TARGETS = 100
"""Client URLs on a list: etcd advises seven members at most, and each URL is dialed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptedList:
    """The list that endpoints follow.

    ``from_elsewhere``: it came from an address that is no loopback address.
    ``confirmed``: the last answer agreed with it. While it is not confirmed and none of its members
    is active, the operators' own targets are used beside it, but for ``outsiders``: the names of
    those that say that they are members of another cluster.
    ``addresses``: what DNS said of the names on it, by host; for the next master alone.
    """

    cluster_id: int
    targets: tuple[MemberTarget, ...]
    from_elsewhere: bool = False
    confirmed: bool = True
    outsiders: frozenset[str] = frozenset()
    addresses: Mapping[str, tuple[str, ...]] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """One answer: the list, the endpoint that gave it, and whether that is no loopback address."""

    listed: MemberList
    endpoint: str
    from_elsewhere: bool
    leaderless: bool = False
    """The member that answered knows no leader, so its list may be an old one."""


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The list is the adopted one, but for members that are left out."""

    left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refusal:
    """The list is not adopted; ``reason`` says why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Proposal:
    """The list is another one: it is adopted if a majority of ``voters`` can be dialed."""

    adopted: AdoptedList
    voters: tuple[str, ...]
    left_out: dict[str, str] = field(default_factory=dict)


def weigh(
    heard: Heard, adopted: AdoptedList | None, *, any_cluster: bool
) -> Unchanged | Refusal | Proposal:
    """What is to be done about an answer.

    ``any_cluster``: another one may be adopted, because a reload asked for it, or because the
    seeds have not settled yet which one is followed. A reload is how an operator lets the gateway
    follow members that were rebuilt, or moved, under addresses of the old ones.
    """
    listed = heard.listed
    if adopted is not None and listed.cluster_id != adopted.cluster_id and not any_cluster:
        return Refusal(
            f"{heard.endpoint} is a member of cluster {listed.cluster_id:x}, expected "
            f"{adopted.cluster_id:x}; a reload adopts the other cluster"
        )
    targets, left_out = targets_of(listed, from_elsewhere=heard.from_elsewhere)
    if adopted is not None and (adopted.cluster_id, adopted.targets) == (
        listed.cluster_id,
        targets,
    ):
        return Unchanged(left_out)
    if heard.leaderless:
        return Refusal(f"{heard.endpoint} knows no leader, its list may be an old one")
    if len(targets) > MAX_TARGETS:
        return Refusal(f"{len(targets)} client URLs, expected at most {MAX_TARGETS}")
    if not targets:
        reasons = "; ".join(f"{name} {reason}" for name, reason in left_out.items())
        return Refusal(f"no client URL can be used: {reasons or 'the list is empty'}")
    new = AdoptedList(
        cluster_id=listed.cluster_id, targets=targets, from_elsewhere=heard.from_elsewhere
    )
    return Proposal(new, listed.voters, left_out)


class Hearing:
    """What several members answer to one question, and which answer counts.

    The first that may be followed does. One that is refused keeps nobody else from being asked: a
    member that was started anew as a cluster of its own, or that is cut off from the others,
    answers as readily as they do. The answer of a member without a leader counts if nobody gives a
    better one.

    Where any cluster may be adopted, all are heard, and the cluster counts that most are members
    of: a single seed may be of another one. At a reload everybody who answers has a vote, else the
    seeds alone, also those that are silent now, until they have settled it.
    """

    def __init__(
        self, adopted: AdoptedList | None, votes: SeedVotes, *, by_operator: bool = False
    ) -> None:
        """``votes``: they have begun, and are taken here. ``by_operator``: a reload asks."""
        self._adopted = adopted
        self._votes = votes
        self.by_operator = by_operator
        self.any_cluster = by_operator or not votes.settled
        """Whether any cluster may be adopted: nobody's answer is enough by itself then."""
        self.answers: list[tuple[Heard, Unchanged | Refusal | Proposal]] = []
        """What was heard, each with what it would come to alone."""

    def take(self, heard: Heard) -> bool:
        """Take one answer; whether nobody else need be asked."""
        judged = weigh(heard, self._adopted, any_cluster=self.any_cluster)
        self.answers.append((heard, judged))
        self._votes.take(heard.endpoint, heard.listed.cluster_id)
        return not (self.any_cluster or heard.leaderless or isinstance(judged, Refusal))

    def outsiders(self, before: Collection[str]) -> set[str]:
        """Who said last that it is a member of another cluster than the adopted one.

        ``before``: those of what was asked earlier; it counts for whoever is silent now.
        """
        if self._adopted is None:
            return set(before)
        followed = self._adopted.cluster_id
        outside = {heard.endpoint: heard.listed.cluster_id != followed for heard, _ in self.answers}
        return {name for name in {*before, *outside} if outside.get(name, True)}

    def put_in_order(self, names: Sequence[str]) -> None:
        """Prefer the answers of those who come first: who answered first is chance.

        Two members may describe one list differently (by their loopback addresses).
        """
        rank = {name: place for place, name in enumerate(names)}
        self.answers.sort(key=lambda answer: rank[answer[0].endpoint])

    @property
    def outcome(self) -> tuple[Heard, Unchanged | Proposal] | None:
        """The answer that counts so far."""
        first: tuple[Heard, Unchanged | Proposal] | None = None
        for heard, judged in self._of_followed():
            if not isinstance(judged, Refusal):
                if not heard.leaderless:
                    return heard, judged
                first = first or (heard, judged)
        return first

    @property
    def is_decided(self) -> bool:
        """Whether a member that knows a leader answered, of the cluster that counts.

        Until then nothing came of the reload that lets any cluster be adopted: its permission lasts
        through an election, and while nobody answers.
        """
        return any(not heard.leaderless for heard, _ in self._of_followed())

    @property
    def refusals(self) -> list[str]:
        """Why answers are not followed; those of the cluster that counts come first."""
        followed = self._cluster
        if self.answers and self.any_cluster and followed is None:
            return [self._no_agreement]
        own = [judged.reason for _, judged in self._of_followed() if isinstance(judged, Refusal)]
        return own + [
            f"{heard.endpoint} is a member of cluster {heard.listed.cluster_id:x}, expected "
            f"{followed:x}, which as many or more are members of"
            for heard, _ in self.answers
            if self.any_cluster and heard.listed.cluster_id != followed
        ]

    def _of_followed(self) -> Sequence[tuple[Heard, Unchanged | Refusal | Proposal]]:
        """The answers about the cluster that counts; all, where only one may."""
        if not self.any_cluster:
            return self.answers
        followed = self._cluster
        return [each for each in self.answers if each[0].listed.cluster_id == followed]

    @property
    def _cluster(self) -> int | None:
        """Where any cluster may count: that of most; the adopted one also if as many are of it."""
        votes = Counter(self._clusters.values())
        largest = max(votes.values(), default=0)
        if self._adopted is not None and votes[self._adopted.cluster_id] == largest:
            return self._adopted.cluster_id
        most = [each for each, count in votes.items() if count == largest]
        return most[0] if len(most) == 1 else None

    @property
    def _clusters(self) -> Mapping[str, int]:
        """Who has a vote, and for which cluster."""
        if self.by_operator:
            return {heard.endpoint: heard.listed.cluster_id for heard, _ in self.answers}
        return self._votes.clusters

    @property
    def _no_agreement(self) -> str:
        members: dict[int, list[str]] = {}
        for name, cluster_id in self._clusters.items():
            members.setdefault(cluster_id, []).append(name)
        texts = [f"{', '.join(sorted(names))} of {each:x}" for each, names in members.items()]
        said = "; ".join(sorted(texts))
        return f"members of different clusters, as many of one as of another: {said}"


def judge(proposal: Proposal, failures: Mapping[MemberTarget, str]) -> AdoptedList | Refusal:
    """Whether enough could be dialed; ``failures`` has what could not, with the reason."""
    targets = proposal.adopted.targets
    reached = {each.member for each in targets if each not in failures}
    if 2 * len(reached) > len(proposal.voters):
        return proposal.adopted
    reasons = [f"{each.address}: {failures[each]}" for each in targets if each in failures]
    reasons += [f"{name} {reason}" for name, reason in proposal.left_out.items()]
    return Refusal(
        f"{len(reached)} of {len(proposal.voters)} voting members can be dialed, expected a "
        f"majority ({'; '.join(reasons)})"
    )


def order_to_ask(
    names: Sequence[str], active: Collection[str], *, last: str, draw: Draw, most: int
) -> tuple[str, ...]:
    """Which endpoints to ask, one after the other: active ones first.

    ``last``: who answered last is asked again, because two members may describe the same list
    differently (by their loopback addresses); else the draw decides.
    At most ``most``, unless none is active: then all, because one that answers ends the outage.
    """
    at = draw(len(names)) if names else 0
    rotated = [*names[at:], *names[:at]]
    ordered = sorted(rotated, key=lambda name: (name not in active, name != last))
    return tuple(ordered[:most] if ordered and ordered[0] in active else ordered)
