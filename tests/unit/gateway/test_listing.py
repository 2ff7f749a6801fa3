"""The list of the sessions of a worker: clients without a session have a place in it too."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from gateway.core.counters import WorkerCounters
from gateway.core.descriptor_budget import DescriptorBudget
from gateway.core.messages import ListSessions, SessionDetails, SessionSlice
from gateway.ingress.quota import Quota
from gateway.scoreboard import Scoreboard
from gateway.sessions.listing import SessionListing
from supervisor.core.admin.session_list import SessionFold, read_query
from supervisor.core.workers.worker_id import WorkerId

WHO = WorkerId(0, 1)


class Listed:
    """A worker without sessions whose clients are held back, as the master lists them."""

    def __init__(self, stack: contextlib.ExitStack, clients: int) -> None:
        self._loop = stack.enter_context(contextlib.closing(asyncio.new_event_loop()))
        scoreboard = stack.enter_context(contextlib.closing(Scoreboard()))
        counters = WorkerCounters()
        self._quota = Quota(
            scoreboard,
            row=scoreboard.open_row(0, 1),
            counters=counters,
            budget=DescriptorBudget(counters),
            serve=lambda *_: None,
        )
        self._quota.closed = True
        stack.callback(self._quota.close)
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        for _ in range(clients):
            stack.enter_context(socket.create_connection(listener.getsockname()))
            accepted, _ = listener.accept()
            self._quota.admit(accepted.detach())
        self._told: list[SessionSlice | SessionDetails] = []
        self._listing = SessionListing(
            self._loop,
            sessions=tuple,
            held_back=self._quota.clients_held_back,
            send=self._told.append,
        )
        stack.callback(self._listing.close)

    def page(self, number: int, after: str | None) -> tuple[list[str], str | None]:
        """The clients of one page of two, and the place of the next page."""
        place = [("next", after)] if after else []
        fold = SessionFold(read_query([("limit", "2"), *place]))
        self._listing.tell_rows(ListSessions(number, 0))
        rows = self._told.pop()
        assert isinstance(rows, SessionSlice)
        fold.add(WHO, rows)
        found, following = fold.page()
        return [rows.clients[row] for _, row in found], following


def test_pages_of_clients_that_are_held_back_have_an_end() -> None:
    """Each has its place from when it came: no page shows one that the page before has shown."""
    with contextlib.ExitStack() as stack:
        listed = Listed(stack, clients=3)
        first, following = listed.page(1, None)
        second, end = listed.page(2, following)
        assert (len(first), len(second), end) == (2, 1, None)
        assert len({*first, *second}) == 3
