"""What a session is doing, judged by what the kernel knows of its connections."""

from __future__ import annotations

import pytest

from gateway.core.session_state import (
    COUNTED_S,
    STALLED_S,
    STALLED_TRIES,
    Connection,
    SessionState,
    idle_s,
    state_of,
)


def connection(
    *, waiting: bool = False, unanswered: int = 0, sent_s: float = 0.0, received_s: float = 0.0
) -> Connection:
    return Connection(
        rtt_s=0.001,
        retransmits=0,
        waiting=waiting,
        unanswered=unanswered,
        sent_s=sent_s,
        received_s=received_s,
    )


@pytest.mark.parametrize(
    ("peer", "stalled"),
    [
        (connection(), False),
        (connection(sent_s=1000.0), False),
        (connection(waiting=True), False),
        (connection(waiting=True, sent_s=STALLED_S), True),
        (connection(waiting=True, unanswered=1), False),
        (connection(waiting=True, unanswered=STALLED_TRIES), True),
        (connection(unanswered=STALLED_TRIES), False),
    ],
)
def test_a_peer_that_takes_no_bytes_stalls_its_session(peer: Connection, stalled: bool) -> None:
    """Something has to wait for it, and it has been asked in vain, or for too long."""
    assert peer.stalled == stalled
    expected = SessionState.STALLED if stalled else SessionState.OPEN
    assert state_of([connection(), peer], half_closed=False) is expected


def test_a_half_closed_session_may_be_stalled_too() -> None:
    """That a peer takes nothing is the more important news."""
    stalled = connection(waiting=True, sent_s=STALLED_S)
    assert state_of([connection()], half_closed=True) is SessionState.HALF_CLOSED
    assert state_of([stalled], half_closed=True) is SessionState.STALLED


@pytest.mark.parametrize(
    ("connections", "idle"),
    [
        ([connection(received_s=3.0), connection(received_s=2.0, sent_s=0.5)], 2.0),
        ([connection(received_s=3.0), connection(received_s=3.0, sent_s=0.5, waiting=True)], 0.5),
        (
            [
                connection(received_s=3.0),
                connection(received_s=3.0, sent_s=0.5, waiting=True, unanswered=1),
            ],
            3.0,
        ),
        ([connection(received_s=300.0), connection(received_s=200.0)], 10.0),
        ([connection(received_s=3.0, sent_s=4.0)], 3.0),
        ([connection(received_s=4.0, sent_s=3.0)], 3.0),
        ([], 5.0),
    ],
)
def test_idle_is_since_the_last_byte_of_either_side(
    connections: list[Connection], idle: float
) -> None:
    """And never longer than the session is old."""
    assert idle_s(connections, age_s=10.0, seen_s=5.0) == idle


def test_what_the_worker_saw_counts_where_the_kernel_began_to_count_anew() -> None:
    """After 49.7 days without a byte; in a younger session the kernel knows it better."""
    connections = [connection(received_s=3.0), connection(received_s=4.0)]
    assert idle_s(connections, age_s=COUNTED_S + 9.0, seen_s=COUNTED_S + 2.0) == COUNTED_S + 2.0
    assert idle_s(connections, age_s=COUNTED_S - 1.0, seen_s=COUNTED_S - 2.0) == 3.0
