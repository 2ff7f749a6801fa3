"""``docs/discovery.md``, "Following the cluster's member list", told a second time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.clock import Violation

if TYPE_CHECKING:
    from collections.abc import Collection

    from supervisor.core.discovery.adoption import AdoptedList, Heard, Hearing
    from supervisor.core.discovery.endpoints import Discovered
    from supervisor.core.discovery.member_list import MemberTarget
    from supervisor.core.handover_state import HandoverState
    from tests.simulation.simulation import World

RECORDED_WITHIN_S = 0.3
"""A crash may cost what was adopted a moment before, which is not written down yet."""


class MembersOracle:
    """Which list is followed, and what that does to the endpoints."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._followed: AdoptedList | None = None
        self._followed_at = 0.0
        self._seeds: Collection[str] = ()
        self._said: dict[str, int] = {}
        """By seed: the cluster that it said last that it is of, to this master since a reload."""
        self._inherited = False
        """Whether this master began with the list of another one."""

    def begins(self, adopted: AdoptedList | None) -> None:
        """A master begins, with the list of the one before if there was one."""
        self._said, self._inherited = {}, adopted is not None

    def asks(self, seeds: Collection[str], *, by_operator: bool) -> None:
        """Members are asked for their list."""
        self._seeds = seeds
        if by_operator:
            self._said = {}

    def heard(self, heard: Heard) -> None:
        """A member answered."""
        if heard.endpoint in self._seeds:
            self._said[heard.endpoint] = heard.listed.cluster_id

    def adopted(
        self,
        before: AdoptedList | None,
        after: AdoptedList,
        heard: Heard,
        reached: Collection[MemberTarget],
        *,
        by_operator: bool,
    ) -> None:
        """A list is adopted: of the same cluster, by a majority, from who knows a leader."""
        if not by_operator:
            self._check_cluster(before, after)
        if heard.leaderless:
            raise Violation("an old list is not adopted", f"{heard.endpoint} knows no leader")
        started = [m.name for m in heard.listed.members if m.client_urls and not m.learner]
        counted = {target.member for target in reached}
        if len(counted) <= len(started) // 2:
            raise Violation("a majority is dialed", f"{sorted(counted)} of {started}")

    def _check_cluster(self, before: AdoptedList | None, after: AdoptedList) -> None:
        """Without a reload: the seeds that are silent now have their votes, too."""
        said = [each for name, each in self._said.items() if name in self._seeds]
        most = max(map(said.count, said), default=0)
        if before is None:
            if said.count(after.cluster_id) < most or said.count(after.cluster_id) * 2 == len(said):
                raise Violation("the cluster of most seeds is adopted", f"{after}: {self._said}")
        elif before.cluster_id != after.cluster_id:
            fewer = said.count(after.cluster_id) <= said.count(before.cluster_id)
            if self._inherited or fewer:
                raise Violation("another cluster is never adopted", f"{after} after {before}")

    def heard_enough(self, hearing: Hearing) -> None:
        """Nobody else is asked: then there is an answer that may be followed."""
        if hearing.outcome is None:
            raise Violation("a list that is refused hides no other", str(hearing.refusals))

    def left(self, state: HandoverState) -> None:
        """The adopted list outlives the image that adopted it, as long as anything is in use."""
        followed, now = self._followed, self._world.clock.now
        fresh = now - self._followed_at < RECORDED_WITHIN_S or self._world.uneven(now)
        if followed is not None and state.member_list is None and state.found and not fresh:
            raise Violation("the adopted list stays", f"{followed} is not left to the next image")
        if not state.found or state.member_list is None:
            self._followed = None

    def begins_anew(self) -> None:
        """The list belonged to other targets."""
        self._followed = None

    def resolved(
        self,
        known: tuple[Discovered, ...],
        found: tuple[Discovered, ...],
        adopted: AdoptedList | None,
        named: tuple[Discovered, ...],
    ) -> None:
        """The list decides: what is used is on it, as long as anything on it can be used.

        ``named``: by the targets and the list, whether it may be used or not.
        """
        if adopted is None and self._followed is not None:
            raise Violation("the adopted list stays", f"{self._followed} is not followed any more")
        if adopted != self._followed:
            self._followed, self._followed_at = adopted, self._world.clock.now
        if adopted is None:
            return
        listed = {str(each.address) for each in adopted.targets}
        names = {each.member for each in adopted.targets}
        members = [_places_of(name, named, adopted) for name in names]
        able = [e for e in known if e.name in listed or any(_places(e) <= m for m in members)]
        outsiders = [e.name for e in found if e not in able]
        if adopted.confirmed and able and outsiders:
            raise Violation("the member list decides", f"{outsiders} are used, listed: {listed}")
        used = {place for each in found for place in _places(each)}
        if missing := [each.name for each in able if not _places(each) & used]:
            raise Violation("the member list decides", f"{missing} are not used")

    def explains(self, name: str) -> bool:
        """Whether an endpoint may be gone because the list has it no more, or by its address."""
        followed = self._followed
        return followed is not None and name not in {str(e.address) for e in followed.targets}


def _places_of(
    member: str, named: tuple[Discovered, ...], adopted: AdoptedList
) -> set[tuple[str, int]]:
    """Where one member is reached, by all of its client URLs together."""
    urls = {str(each.address) for each in adopted.targets if each.member == member}
    return set().union(*(_places(each) for each in named if each.name in urls))


def _places(endpoint: Discovered) -> set[tuple[str, int]]:
    """Where it is dialed."""
    return {(address, endpoint.port) for address in endpoint.addresses}
