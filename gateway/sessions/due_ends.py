"""Which sessions have to end, and why, by the newest snapshot or because all have to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from time import monotonic

from gateway.core.counters import End
from gateway.core.inactive_places import InactivePlaces, Place
from gateway.core.messages import Snapshot
from gateway.sessions.age import SessionAge
from gateway.sessions.cuts import ScheduledCuts
from gateway.sessions.session import Session


class DueEnds:
    """Decides; ``cuts`` are made by their owner. Borrows ``age``, and which sessions are cut.

    ``kept``: the endpoints of the newest snapshot, None before the first.
    """

    def __init__(self, age: SessionAge, cuts: ScheduledCuts) -> None:
        self._age = age
        self._cuts = cuts
        self.kept: frozenset[str] | None = None
        self._emptied: frozenset[str] = frozenset()
        self._inactive = InactivePlaces()
        self._turned_inactive: Mapping[Place, float] = {}
        """Where sessions have to go that began before an instant."""
        self._closes = False
        """Whether sessions of an endpoint that turns inactive are closed (``--on-inactive``)."""
        self.of_all: End | None = None
        """The end of all sessions, whatever the snapshot says; None: there is none yet."""

    def apply(self, snapshot: Snapshot) -> None:
        """A new snapshot, for all that is asked from now on."""
        self.kept = frozenset(endpoint.name for endpoint in snapshot.endpoints)
        self._emptied = frozenset(each.name for each in snapshot.endpoints if each.emptied)
        before, closed = self._inactive, self._closes
        # Noted whatever the setting. So where a reload turns --on-inactive=close on, those go that
        # would have gone before, and those that began on an inactive endpoint stay.
        self._inactive = now = InactivePlaces(snapshot.endpoints, before, monotonic())
        self._closes = snapshot.settings.on_inactive == "close"
        self._turned_inactive = {}
        if self._closes:
            self._turned_inactive = now.turned(before) if closed else now.since

    def find(self, sessions: Iterable[Session]) -> Iterator[tuple[Session, End]]:
        """Those of the sessions that have to end. To be asked once for each snapshot.

        Who stays inactive from one snapshot to the next has to go only if it was to be cut before.
        """
        now = monotonic()
        for session in sessions:
            if self.of_all is not None:
                yield session, self.of_all
            elif session.endpoint and (end := self.find_end_at(session.endpoint)) is not None:
                yield session, end
            elif self._is_left_inactive(session):
                yield session, End.INACTIVE
            elif self._age.is_too_old(session, now):  # many are where it is new, or shorter
                yield session, End.AGE

    def find_end_at(self, name: str) -> End | None:
        """The end of every session of this endpoint, if it may have none."""
        if self.kept is not None and name not in self.kept:
            return End.REMOVED
        return End.DRAINED if name in self._emptied else None

    def _is_left_inactive(self, session: Session) -> bool:
        place = self._inactive.place_of(session.endpoint, session.address)
        return session.started_at < self._turned_inactive.get(place, 0.0) or (
            self._closes and place in self._inactive.since and session in self._cuts
        )
