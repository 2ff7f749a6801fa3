"""The addresses of an endpoint that failed are dialed last, and tried again at no client's cost."""

from __future__ import annotations

from dataclasses import replace

from gateway.core.address_memory import FIRST_RETRY_S, LONGEST_RETRY_S, AddressMemory
from gateway.core.endpoint import Endpoint

THREE = Endpoint("three:1", ("10.0.0.1", "10.0.0.2", "10.0.0.3"), 1)
A, B, C = THREE.addresses


def test_the_addresses_take_turns() -> None:
    """Each is first as often as any other; nothing else is remembered while all answer."""
    memory = AddressMemory()
    memory.answered(THREE.name, B)
    assert not memory.failures
    firsts = [memory.order(THREE, 0.0)[0] for _ in range(6)]
    assert firsts == [A, B, C, A, B, C]
    assert memory.order(THREE, 0.0) == (A, B, C)
    assert memory.order(THREE, 0.0) == (B, C, A)
    assert not memory.is_doubtful(THREE.name, A)


def test_workers_begin_with_different_addresses() -> None:
    """Where each begins is its own; endpoints that left are forgotten."""
    memory = AddressMemory(first_turn=lambda name: 2 if name == THREE.name else 0)
    assert memory.order(THREE, 0.0) == (C, A, B)
    assert memory.order(THREE, 0.0) == (A, B, C)
    memory.keep([])
    assert memory.order(THREE, 0.0) == (C, A, B)


def test_the_family_that_comes_first_is_preferred() -> None:
    """The other family is dialed when the first one failed."""
    both = Endpoint("both:1", ("fd00::1", "fd00::2", "10.0.0.1"), 1)
    memory = AddressMemory()
    assert memory.order(both, 0.0) == ("fd00::1", "fd00::2", "10.0.0.1")
    assert memory.order(both, 0.0) == ("fd00::2", "fd00::1", "10.0.0.1")
    mixed = Endpoint("mixed:1", ("10.0.0.1", "fd00::1"), 1)
    assert memory.order(mixed, 0.0) == memory.order(mixed, 0.0) == ("10.0.0.1", "fd00::1")
    memory.failed(both, "fd00::1", 0.0)
    memory.failed(both, "fd00::2", 1.0)
    assert memory.order(both, 2.0) == ("10.0.0.1", "fd00::1", "fd00::2")


def test_the_address_with_the_fewest_sessions_is_first() -> None:
    """With loads; those that are alike take turns."""
    memory = AddressMemory()
    loads = {A: 2, B: 1}
    assert memory.order(THREE, 0.0, loads) == (C, B, A)
    assert memory.order(THREE, 0.0, {})[0] == B


def test_what_the_master_holds_for_inactive_comes_after_the_good() -> None:
    """But before what failed here."""
    memory = AddressMemory()
    three = replace(THREE, inactive=(B,))
    assert [memory.order(three, 0.0) for _ in range(2)] == [(A, C, B), (C, A, B)]
    memory.failed(three, A, 0.0)
    assert memory.order(three, 1.0) == (C, B, A)
    memory.failed(three, C, 0.0)
    assert memory.order(three, 1.0) == (B, A, C)


def test_an_address_that_failed_comes_last() -> None:
    """It is doubtful until it answers; the others take turns."""
    memory = AddressMemory()
    memory.failed(THREE, A, 0.0)
    assert memory.failures
    assert memory.order(THREE, 1.0) == (B, C, A)
    assert memory.order(THREE, 1.0) == (C, B, A)
    assert memory.is_doubtful(THREE.name, A)
    assert not memory.is_doubtful(THREE.name, B)
    memory.answered(THREE.name, A)
    assert not memory.failures
    assert memory.order(THREE, 1.0)[0] == C


def test_one_client_tries_it_again_when_its_time_has_come() -> None:
    """Only one each time; and each further failure doubles the wait."""
    memory = AddressMemory()
    now = 0.0
    memory.failed(THREE, A, now)
    for wait_s in (FIRST_RETRY_S, 2 * FIRST_RETRY_S, 4 * FIRST_RETRY_S, LONGEST_RETRY_S):
        assert memory.order(THREE, now + wait_s - 0.1)[-1] == A
        now += wait_s
        assert memory.order(THREE, now)[0] == A
        assert memory.order(THREE, now)[-1] == A
        memory.failed(THREE, A, now)


def test_when_all_failed_the_oldest_failure_comes_first() -> None:
    """There is no better one to dial beside it."""
    memory = AddressMemory()
    for now, address in enumerate((C, A, B)):
        memory.failed(THREE, address, float(now))
    assert memory.order(THREE, 1000.0) == (C, A, B)


def test_a_single_address_is_not_remembered() -> None:
    """There is no other to dial first; whether its endpoint is dialed is the table's decision."""
    memory = AddressMemory()
    memory.failed(Endpoint("one:1", ("10.0.0.1",), 1), "10.0.0.1", 0.0)
    assert not memory.failures


def test_what_is_gone_is_forgotten() -> None:
    """Endpoints that left, and addresses that an endpoint no longer has."""
    memory = AddressMemory()
    other = Endpoint("other:1", ("10.0.1.1", "10.0.1.2"), 1)
    memory.failed(THREE, A, 0.0)
    memory.failed(THREE, B, 0.0)
    memory.answered(THREE.name, C)
    memory.failed(other, "10.0.1.1", 0.0)
    memory.keep([Endpoint(THREE.name, (B, C), 1)])
    assert memory.is_doubtful(THREE.name, B)
    assert not memory.is_doubtful(THREE.name, A)
    assert not memory.is_doubtful(other.name, "10.0.1.1")
    memory.keep([Endpoint(THREE.name, (C,), 1)])
    assert not memory.failures
