"""The roster: which endpoints there are, in which state, and at which version of the snapshot.

Resolution says which endpoints are in DNS, and health says which are active. The roster joins both
into the list that goes to the workers; it is at the root of ``core`` because it belongs to neither
of their packages. An endpoint that leaves DNS gets no new sessions and stays for its grace, or, if
it is inactive and has no sessions, until that is certain. One that comes back within its grace is
what it was before it left.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from gateway.core.messages import Settings, Snapshot
from supervisor.core.discovery.endpoints import Discovered, EndpointsChange, compare
from supervisor.core.roster_member import Member, Policy, Removed, Since


class Roster:
    """Time is an argument: ``now`` is monotonic. ``version`` goes on from an earlier master's."""

    def __init__(self, version: int = 0) -> None:
        self._members: dict[str, Member] = {}
        self._snapshot = Snapshot(version, ())
        self._policy = Policy()
        self._moved = True
        """Whether anything happened since that snapshot that a worker could notice."""

    @property
    def version(self) -> int:
        """Of the last snapshot that was made."""
        return self._snapshot.version

    @property
    def members(self) -> tuple[Member, ...]:
        """All members, those in DNS first, in the order of their resolution."""
        return tuple(self._members.values())

    @property
    def removed(self) -> tuple[Removed, ...]:
        """Those that left DNS and are in their grace."""
        return tuple(
            Removed(
                found=each.found,
                at=each.removed_at,
                grace_s=each.grace_s,
                active=each.active,
                sessions=each.sessions,
            )
            for each in self._members.values()
            if each.removed_at is not None
        )

    def remember(self, removed: Iterable[Removed]) -> None:
        """Begin with what a former master had in grace: its sessions go on."""
        for each in removed:
            self._members[each.found.name] = Member(
                each.found,
                active=each.active,
                sessions=each.sessions,
                removed_at=each.at,
                grace_s=each.grace_s,
            )
        self._moved = True

    @property
    def since(self) -> Since:
        """Since when endpoints are under maintenance, or come back to their share."""
        all_of_them = self._members.items()
        return Since(
            draining={n: m.draining_at for n, m in all_of_them if m.draining_at is not None},
            returned={n: m.returned_at for n, m in all_of_them if m.returned_at is not None},
        )

    def resume(self, since: Since, now: float) -> None:
        """Go on where a former master was, with what the policy still wants and health allows."""
        for name, member in self._members.items():
            drains = member.draining_at is not None
            returned_at = member.back_at(self._policy, now)
            if returned_at is not None and (drains or name not in since.draining):
                returned_at = since.returned.get(name)
            resumed = dataclasses.replace(
                member,
                draining_at=since.draining.get(name, now) if drains else None,
                returned_at=returned_at,
            )
            self._members[name] = resumed.under(self._policy, now)
        self._moved = True

    def follow(self, policy: Policy, now: float) -> None:
        """Take a new policy; it counts for the endpoints at hand and for those to come.

        So a reload to another grace counts for those that are in theirs.
        """
        self._policy = policy
        self._members = {name: each.under(policy, now) for name, each in self._members.items()}
        self._moved = True

    def resolve(self, found: Iterable[Discovered], now: float, grace_s: float) -> EndpointsChange:
        """Take what resolution found as the whole truth; returns what that changed.

        A new endpoint starts active. One that left counts as removed here and now, whatever its
        grace; if it comes back it is among the added.
        """
        wanted = {each.name: each for each in found}
        change = compare(
            [m.found for m in self._members.values() if m.removed_at is None], wanted.values()
        )
        members = {
            name: dataclasses.replace(
                self._members.get(name) or Member(each), found=each, removed_at=None
            ).under(self._policy, now)
            for name, each in wanted.items()
        }
        for name, member in self._members.items():
            if name in wanted:
                continue
            since = now if member.removed_at is None else member.removed_at
            members[name] = dataclasses.replace(member, removed_at=since, grace_s=grace_s)
        self._members = members
        self._moved = True
        return change

    def judge(self, name: str, active: bool, now: float, inactive: tuple[str, ...] = ()) -> None:
        """Take health's verdict; one that left DNS is watched for the rest of its grace, too.

        ``inactive``: which of its several addresses are inactive.
        """
        member = self._members.get(name)
        if member is None:
            return
        if member.inactive != inactive:
            self._members[name] = member = dataclasses.replace(member, inactive=inactive)
            self._moved = True
        if member.active == active:
            return
        member = dataclasses.replace(member, active=active)
        member = dataclasses.replace(member, returned_at=member.back_at(self._policy, now))
        self._members[name] = member.advanced(self._policy, now)
        self._moved = True

    def assume_sessions(self) -> None:
        """Begin beside workers of a former master, whose sessions are not known yet.

        What has none might be dropped.
        """
        for name, member in self._members.items():
            self._members[name] = dataclasses.replace(member, sessions=max(1, member.sessions))

    def sessions(self, name: str, count: int, *, at_least: bool = False) -> None:
        """How many sessions the endpoint has over all workers, as last reported.

        ``at_least``: some workers have not reported yet.
        """
        member = self._members.get(name)
        if member is not None and at_least:
            count = max(count, member.sessions)
        if member is not None and member.sessions != count:
            self._members[name] = dataclasses.replace(member, sessions=count)

    def advance(self, now: float) -> tuple[str, ...]:
        """Do what time brings: raise the shares of those that came back, end the times of sessions.

        Drops the removed whose grace is over; returns their names.
        """
        for name, member in self._members.items():
            if member.draining_at is None and member.returned_at is None:
                continue
            advanced = member.advanced(self._policy, now)
            if advanced != member:
                self._members[name] = advanced
                self._moved = True
        gone = tuple(
            name
            for name, member in self._members.items()
            if member.ends_at is not None and member.ends_at <= now
        )
        for name in gone:
            del self._members[name]
            self._moved = True
        return gone

    def snapshot(self, settings: Settings) -> Snapshot:
        """The current snapshot; its version is greater than the last one's if anything changed."""
        last = self._snapshot
        if not self._moved and settings == last.settings:
            return last
        self._moved = False
        endpoints = tuple(member.endpoint() for member in self._members.values())
        if endpoints != last.endpoints or settings != last.settings:
            self._snapshot = Snapshot(last.version + 1, endpoints, settings)
        return self._snapshot
