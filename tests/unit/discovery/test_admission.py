"""Who is admitted after the TLS check, and who is checked again."""

from __future__ import annotations

import math

from supervisor.core.discovery.admission import (
    FIRST_RETRY_S,
    MAX_RETRY_S,
    RECHECK_S,
    Admission,
    Candidate,
    Passed,
    Refused,
    Unreachable,
)
from supervisor.core.discovery.endpoints import Discovered

E = Discovered("a:1", "a", 1, ("10.0.0.1", "10.0.0.2"))
ONE, TWO = Candidate("a:1", "10.0.0.1", 1), Candidate("a:1", "10.0.0.2", 1)


def test_the_new_are_checked_and_until_then_not_used() -> None:
    """A new endpoint is checked at once, each of its addresses, and not used before."""
    admission = Admission()
    assert admission.to_check([E], 0, everything=False) == (ONE, TWO)
    assert admission.admitted([E]) == ()
    assert admission.next_at() == math.inf


def test_only_addresses_that_passed_are_used() -> None:
    """An endpoint is used with those of its addresses that passed."""
    admission = Admission()
    admission.take(ONE, Passed(), 0)
    admission.take(TWO, Refused("certificate: expired"), 0)
    (used,) = admission.admitted([E])
    assert used.addresses == ("10.0.0.1",)
    assert used.tls, "found under whatever name, it proved to speak TLS"
    assert admission.refused() == {"a:1": "10.0.0.2: certificate: expired"}
    assert admission.to_check([E], 0.5, everything=False) == ()
    assert admission.to_check([E], FIRST_RETRY_S, everything=False) == (TWO,)
    assert admission.to_check([E], 0, everything=True) == (ONE, TWO)


def test_a_fresh_check_is_not_made_again_for_each_answer_of_dns() -> None:
    """Known endpoints are checked every five minutes at most, new ones at once, for any TTL."""
    admission = Admission()
    admission.take(ONE, Passed(), 0)
    assert admission.to_check([E], 60, renewed=True) == (TWO,)
    admission.take(TWO, Passed(), 60)
    assert admission.to_check([E], 299, renewed=True) == ()
    assert admission.to_check([E], RECHECK_S, renewed=True) == (ONE,)
    assert admission.to_check([E], RECHECK_S) == (), "no answer, no reason"
    assert admission.to_check([E], 61, everything=True) == (ONE, TWO)


def test_who_passed_once_may_be_down() -> None:
    """An address that passed stays in use while it cannot be reached: that is health's matter."""
    admission = Admission()
    admission.take(ONE, Passed(), 0)
    admission.take(ONE, Unreachable("refused"), 1)
    assert admission.admitted([E])
    assert admission.waiting() == {}
    admission.take(ONE, Refused("closed", hung_up=True), 2)
    assert admission.admitted([E]), "a server going down hangs up too"
    admission.take(ONE, Refused("certificate: expired"), 3)
    assert not admission.admitted([E])


def test_who_passed_under_another_name_may_be_down() -> None:
    """A member of the list that gets an SRV record is the same server; it is checked at once."""
    admission = Admission()
    admission.take(ONE, Passed(), 0)
    admission.take(TWO, Refused("certificate: expired"), 0)
    renamed = Discovered("b:1", "b", 1, E.addresses)
    first, second = (Candidate("b:1", each, 1) for each in E.addresses)
    assert admission.to_check([renamed], 1) == (first, second)
    (used,) = admission.admitted([renamed])
    assert used.addresses == E.addresses[:1]
    admission.take(first, Unreachable("timeout"), 2)
    assert admission.admitted([renamed])
    admission.take(first, Refused("certificate: expired"), 3)
    assert not admission.admitted([renamed])
    other_port = Discovered("a:2", "a", 2, E.addresses)
    admission.take(first, Passed(), 4)
    admission.to_check([other_port], 5)
    assert not admission.admitted([other_port])


def test_an_address_that_this_host_has_no_way_to_is_not_missed() -> None:
    """Not while another one of the endpoint is used; an address that is merely down is told."""
    admission = Admission()
    admission.take(ONE, Passed(), 0)
    admission.take(TWO, Unreachable("network is unreachable", cut_off=True), 0)
    assert admission.waiting() == {}
    admission.take(ONE, Refused("certificate: expired"), 1)
    assert admission.waiting() == {"a:1": "network is unreachable"}
    admission.take(ONE, Passed(), 2)
    admission.take(TWO, Unreachable("connection refused"), 2)
    assert admission.waiting() == {"a:1": "10.0.0.2: connection refused"}


def test_who_never_passed_and_is_down_is_tried_again() -> None:
    """An endpoint that was merely down is retried with growing delays, never dropped."""
    admission = Admission()
    now = 0.0
    for expected in (1, 2, 4, 8, 16, MAX_RETRY_S, MAX_RETRY_S):
        admission.take(ONE, Unreachable("refused"), now)
        assert admission.next_at() == now + expected
        now += expected
    assert admission.waiting() == {"a:1": "refused"}
    assert not admission.admitted([E])
    admission.take(ONE, Passed(), now)
    assert admission.admitted([E])
    assert admission.next_at() == math.inf


def test_a_plaintext_server_that_hangs_up_is_refused() -> None:
    """Hanging up without a word is a refusal of one that never passed."""
    admission = Admission()
    admission.take(ONE, Refused("closed", hung_up=True), 0)
    assert admission.refused() == {"a:1": "closed"}


def test_who_left_is_forgotten_and_copies_are_independent() -> None:
    """An endpoint that left must pass again when it comes back."""
    admission = Admission()
    admission.take(ONE, Passed(), 0)
    twin = admission.copy()
    admission.to_check([], 1, everything=False)
    assert not admission.admitted([E])
    assert twin.admitted([E])


def test_what_a_former_master_admitted_is_used_and_checked_at_once() -> None:
    """One that cannot be reached just now stays in use; one that is refused does not."""
    found = Discovered("a:1", "a", 1, ("10.0.0.1", "10.0.0.2"), tls=True, srv=True)
    plain = Discovered("b:1", "b", 1, ("10.0.0.3",), srv=True)
    static = Discovered("c:1", "c", 1, ("10.0.0.4",), tls=True)
    admission = Admission()
    admission.remember([found, plain, static], 5.0)
    assert admission.admitted([found, plain, static]) == (found,)
    assert admission.to_check([found], 5.0) == (ONE, TWO)
    admission.take(ONE, Unreachable("timeout"), 5.0)
    admission.take(TWO, Refused("expired"), 5.0)
    (used,) = admission.admitted([found])
    assert used.addresses == ("10.0.0.1",)


def test_with_other_files_whoever_did_not_pass_is_checked_at_once() -> None:
    """What passed needs no hurry, and what never was checked is to be checked anyway."""
    admission = Admission()
    admission.take(ONE, Passed(), 0)
    admission.take(TWO, Refused("certificate: unknown authority"), 0)
    admission.hurry(0.5)
    assert admission.next_at() == 0.5
    assert admission.to_check([E], 0.5) == (TWO,)


def test_what_a_copy_learned_counts_for_those_known_here() -> None:
    """A configuration that was tried and not taken has checked other endpoints, too."""
    ours = Admission()
    ours.take(ONE, Passed(), 0)
    ours.take(TWO, Passed(), 0)
    tried = ours.copy()
    other = Candidate("b:1", "10.0.0.9", 1)
    tried.to_check([Discovered("a:1", "a", 1, (ONE.address,))], 0, everything=True)
    tried.take(ONE, Refused("expired"), 1)
    tried.take(other, Refused("expired"), 1)
    ours.learn_from(tried)
    assert ours.refused() == {"a:1": "10.0.0.1: expired"}
    assert [each.addresses for each in ours.admitted([E])] == [(TWO.address,)]
