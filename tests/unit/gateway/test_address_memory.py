"""The addresses of an endpoint that failed are dialed last, and tried again at no client's cost."""

from __future__ import annotations

from gateway.core.address_memory import FIRST_RETRY_S, LONGEST_RETRY_S, AddressMemory
from gateway.core.endpoint import Endpoint

THREE = Endpoint("three:1", ("10.0.0.1", "10.0.0.2", "10.0.0.3"), 1)
A, B, C = THREE.addresses


def test_nothing_is_remembered_while_everything_answers() -> None:
    """It is false, and the order is the endpoint's own."""
    memory = AddressMemory()
    memory.answered(THREE.name, B)
    assert not memory
    assert memory.order(THREE, 0.0) is THREE.addresses
    assert not memory.is_doubtful(THREE.name, A)


def test_an_address_that_failed_comes_last() -> None:
    """It is doubtful until it answers; then it is in its old place."""
    memory = AddressMemory()
    memory.failed(THREE, A, 0.0)
    assert memory
    assert memory.order(THREE, 1.0) == (B, C, A)
    assert memory.is_doubtful(THREE.name, A)
    assert not memory.is_doubtful(THREE.name, B)
    memory.answered(THREE.name, A)
    assert not memory
    assert memory.order(THREE, 1.0) == THREE.addresses


def test_the_one_that_answered_last_comes_first() -> None:
    """While any of them is in doubt, the proven one is best."""
    memory = AddressMemory()
    memory.failed(THREE, A, 0.0)
    memory.answered(THREE.name, C)
    assert memory.order(THREE, 1.0) == (C, B, A)


def test_one_client_tries_it_again_when_its_time_has_come() -> None:
    """Only one each time; and each further failure doubles the wait."""
    memory = AddressMemory()
    now = 0.0
    memory.failed(THREE, A, now)
    for wait_s in (FIRST_RETRY_S, 2 * FIRST_RETRY_S, 4 * FIRST_RETRY_S, LONGEST_RETRY_S):
        assert memory.order(THREE, now + wait_s - 0.1) == (B, C, A)
        now += wait_s
        assert memory.order(THREE, now) == (A, B, C)
        assert memory.order(THREE, now) == (B, C, A)
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
    assert not memory


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
    assert not memory
