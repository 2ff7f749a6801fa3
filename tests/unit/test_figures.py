"""Figures that the pages name are those of the code.

An operator reckons with them. Tests of the rules use the constants, so that they would follow a
constant that was changed; here the sentence of the page is beside it.
"""

from __future__ import annotations

import pytest

from gateway import heartbeat, log_sink, message_socket
from gateway.core import address_memory, descriptor_budget, messages, proxy_protocol, selection
from gateway.core.unix_address import DEFAULT_MODE, MAX_UNIX_PATH
from gateway.ingress import acceptor, listener, quota
from gateway.sessions import leg, proxy_in, tcp_sample
from supervisor import interim_admin, session_lister, snapshot_publisher, upkeep
from supervisor.admin import connection, lifecycle, port_monitor, recent_events, server
from supervisor.core import certificates, roster_member
from supervisor.core.admin import session_list, turned_away
from supervisor.core.discovery import (
    admission,
    answers,
    nameservers,
    replies,
    resolution,
    schedule,
    search,
    system_names,
)
from supervisor.core.health import damping, host_failures, machine
from supervisor.core.workers import adopters, fleet, slot
from supervisor.discovery import dns_message, hosts_file, member_sync, resolver
from supervisor.system import http_answer, tls_contexts, tls_sessions
from supervisor.workers import handles, session_survey
from tests.generate import DOCS

DAY_S = 86400.0

FIGURES: list[tuple[str, str, object, object]] = [
    # at the edge
    ("edge", "in any number of pieces, within 3 seconds", proxy_in.HEADER_S, 3.0),
    ("edge", "A line of version 1 may have 107 bytes", proxy_protocol.MAX_V1_BYTES, 107),
    ("edge", "may have 4096 bytes after its first 16", proxy_protocol.MAX_V2_BYTES, 4096),
    ("edge", "the log has one line a minute for all workers", turned_away.QUIET_S, 60.0),
    ("edge", "is absolute, has at most 107 bytes", MAX_UNIX_PATH, 107),
    ("edge", "`mode` is octal and 0660 unless you say otherwise", DEFAULT_MODE, 0o660),
    ("edge", "(`net.core.somaxconn`, at most 4096)", listener.BACKLOG, 4096),
    # tuning
    ("tuning", "get one session in a hundred, all of them", selection.ZERO_WEIGHT_DIVISOR, 100),
    ("tuning", "after at most 100 ms, 200 ms, 400 ms", machine.PROBE_GAP_S, 0.1),
    ("tuning", "within a second, or within `--health-interval`", machine.SETTLE_S, 1.0),
    ("tuning", "relapse within 30 s of recovery", damping.STABLE_S, 30.0),
    ("tuning", "of recovery three times without penalty", damping.FREE_FLAPS, 3),
    ("tuning", "for 1 s, then 2 s, 4 s and so on", damping.HOLD_FIRST_S, 1.0),
    ("tuning", "again at least every ten minutes", tls_sessions.FULL_HANDSHAKE_S, 600.0),
    ("tuning", "`--health-key-file` are looked at every second", upkeep.TICK_S, 1.0),
    ("tuning", "when it has stayed the same for a second", tls_contexts.SETTLE_S, 1.0),
    ("tuning", "once a day from 14 days before", certificates.WARN_S, 14 * DAY_S),
    ("tuning", "`certificate ends soon` once a day", certificates.WARN_EVERY_S, DAY_S),
    ("tuning", "the log says `accepting paused` at most once a minute", quota.QUIET_NS, 60 * 10**9),
    ("tuning", "probes get, the first 64 KiB are read", http_answer.MAX_BODY_BYTES, 64 << 10),
    ("tuning", "two descriptors per session", descriptor_budget.PER_SESSION, 2),
    ("tuning", "two more descriptors each", descriptor_budget.PER_PIPE, 2),
    ("tuning", "at most a quarter of the descriptors", descriptor_budget.PIPES_SHARE, 4),
    # operations
    ("operations", "or after one second if the start takes longer", lifecycle.PATIENCE_S, 1.0),
    (
        "operations",
        "until the new program serves, 15 seconds at most",
        interim_admin.LONGEST_S,
        15.0,
    ),
    ("operations", "is closed after ten seconds", connection.CONNECTION_LIFE_S, 10.0),
    ("operations", "At 256 connections the oldest is closed", connection.MAX_CONNECTIONS, 256),
    ("operations", "at 64 answers that are not read yet", connection.MAX_ANSWERS, 64),
    ("operations", "Requests within a tenth of a second", server.VIEW_LIFE_S, 0.1),
    ("operations", "the last fifty lines of the master's log", recent_events.EVENTS_KEPT, 50),
    ("operations", "A page has 1,000 sessions", session_list.DEFAULT_LIMIT, 1000),
    ("operations", "and 10,000 at most", session_list.MOST_LIMIT, 10_000),
    ("operations", "did not answer for three seconds", session_survey.ANSWER_S, 3.0),
    ("operations", "had not told everything after seven", session_lister.WORKERS_S, 7.0),
    ("operations", "A request that has waited for six seconds", session_lister.MOST_WAIT_S, 6.0),
    ("operations", "that moved bytes, 64 at most", tcp_sample.MOST, 64),
    ("operations", "instead of every five seconds", port_monitor.EVERY_TICKS, 5),
    ("operations", "looked for once a minute", port_monitor.EVERY_TICKS_FROM_PROC, 60),
    ("operations", "logged once a minute while it lasts", host_failures.LOG_EVERY_S, 60.0),
    ("operations", "256 KiB wait in each process", log_sink.MAX_QUEUED_BYTES, 256 << 10),
    ("operations", "of 4 MB per worker that wait", message_socket.MOST_QUEUED_BYTES, 4 << 20),
    ("operations", "or this is tried again every 0.2 s", adopters.ADOPT_RETRY_S, 0.2),
    # discovery
    ("discovery", "at the earliest after 5 seconds", answers.MIN_TTL_S, 5.0),
    ("discovery", "at the latest after 5 minutes", answers.MAX_TTL_S, 300.0),
    ("discovery", "asks again, at most every 5 s", answers.MAX_FIRST_RETRY_S, 5.0),
    ("discovery", "asks again, at most every 30 s", answers.MAX_RETRY_S, 30.0),
    ("discovery", "(30 s if that is 0)", answers.CONFIRM_S, 30.0),
    ("discovery", "asked at once and then every 5 seconds", schedule.URGENT_S, 5.0),
    ("discovery", "comes last for 30 s, doubling", nameservers.FIRST_AVOID_S, 30.0),
    ("discovery", "doubling up to 10 min", nameservers.MAX_AVOID_S, 600.0),
    ("discovery", "which is remembered for an hour", nameservers.EDNS_MEMORY_S, 3600.0),
    ("discovery", "up to 16 are followed", replies.MAX_ALIASES, 16),
    ("discovery", "no longer than half a second the next time", search.HURRIED_S, 0.5),
    ("discovery", "with each search, up to 10 s", search.MOST_HURRIED_S, 10.0),
    ("discovery", "with 1,232 bytes for UDP", dns_message.EDNS_PAYLOAD_BYTES, 1232),
    ("discovery", "The first three are asked", system_names.MAX_NAMESERVERS, 3),
    ("discovery", "as it is at the end. Up to 15", system_names.MAX_NDOTS, 15),
    ("discovery", "1 s to 30 s", system_names.MAX_TIMEOUT_S, 30),
    ("discovery", "all nameservers are asked. Up to 5", system_names.MAX_ATTEMPTS, 5),
    ("discovery", "about one name takes 20 seconds at most", resolver.MAX_LIFETIME_S, 20.0),
    ("discovery", "`timeout` (2 s then)", resolver.NAMESERVER_TIMEOUT_S, 2.0),
    ("discovery", "What is behind the first 64 MiB", hosts_file.MAX_BYTES, 64 << 20),
    ("discovery", "but at most every 5 minutes", admission.RECHECK_S, 300.0),
    ("discovery", "whose TTL has expired, 32 at a time", resolver.MAX_CONCURRENT, 32),
    ("discovery", "spell out the first five errors", resolution.MAX_ERRORS, 5),
    ("discovery", "for a tenth of a second at most", snapshot_publisher.MAX_PAUSE_S, 0.1),
    ("discovery", "up to two others are asked", member_sync.MOST_ASKED, 1 + 2),
    # a session, a worker, and limits
    ("life-of-a-session", "Up to 4096 clients may wait", listener.BACKLOG, 4096),
    ("life-of-a-session", "accepts for 8 ms at a time", acceptor.ACCEPT_S, 0.008),
    ("life-of-a-session", "or a tenth of a second has passed", acceptor.RESUME_AFTER_S, 0.1),
    ("life-of-a-session", "A leg reads at most 64 KiB", leg.READ_BYTES, 64 << 10),
    ("life-of-a-session", "that fills two reads in a row", leg.BULK_READS, 2),
    ("life-of-a-session", "after 10 to 60 seconds", address_memory.FIRST_RETRY_S, 10.0),
    ("life-of-a-session", "after 10 to 60 seconds", address_memory.LONGEST_RETRY_S, 60.0),
    ("life-of-a-worker", "ten times a second on the scoreboard", heartbeat.INTERVAL_S, 0.1),
    ("life-of-a-worker", "four times a second while every", fleet.SETTLED_TICK_S, 1 / 4),
    ("life-of-a-worker", "twenty times while one is silent", fleet.TICK_S, 1 / 20),
    ("life-of-a-worker", "After 0.3 s without a record", slot.LATE_AFTER_S, 0.3),
    (
        "life-of-a-worker",
        "after 3 s without a report",
        handles.REPORT_HOLDS_S + slot.LATE_AFTER_S,
        3.0,
    ),
    ("life-of-a-worker", "takes more than 0.1 s, another worker", slot.ADOPT_AFTER_S, 0.1),
    ("life-of-a-worker", "or within a second after", fleet.SHORT_LIFE_S, 1.0),
    ("life-of-a-worker", "Five such deaths in a row", fleet.FAILED_STARTS_MOST, 5),
    ("life-of-a-worker", "waited for, 3 seconds at most", fleet.FIRST_CHANCE_S, 3),
    ("life-of-a-worker", "two seconds after its deadline", slot.KILL_MARGIN_S, 2.0),
    ("known-issues", "It has at most 256 workers", messages.MAX_SLOTS, 256),
]


@pytest.mark.parametrize(
    ("page", "phrase", "figure", "expected"), FIGURES, ids=[phrase for _, phrase, _, _ in FIGURES]
)
def test_a_page_says_what_the_code_does(
    page: str, phrase: str, figure: object, expected: object
) -> None:
    """Whoever changes a figure changes the page, and the other way round."""
    assert phrase in (DOCS / f"{page}.md").read_text()
    assert figure == expected


def test_an_endpoint_that_left_is_not_dropped_before_a_report_may_have_told_of_a_session() -> None:
    """Workers report once a second, and two such intervals are enough."""
    assert heartbeat.INTERVAL_S * heartbeat.REPORT_EVERY_BEATS == 1.0
    assert roster_member.SETTLE_S == 2.0
