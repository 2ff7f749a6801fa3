"""What a worker's descriptors are spent on."""

from __future__ import annotations

from gateway.core.counters import WorkerCounters
from gateway.core.descriptor_budget import RESERVE, DescriptorBudget


def budget_of(total: int) -> tuple[DescriptorBudget, WorkerCounters]:
    counters = WorkerCounters()
    budget = DescriptorBudget(counters)
    budget.limit(total + RESERVE + 20, 20)
    return budget, counters


def test_without_a_limit_everything_is_to_be_had() -> None:
    """Before the limit is known, and where there is none."""
    counters = WorkerCounters(sessions=1_000_000)
    budget = DescriptorBudget(counters)
    assert budget.take_pipe()
    assert budget.take_beside_clients()
    assert budget.free > 1_000_000


def test_everything_comes_out_of_one_budget() -> None:
    """Sessions, pipes, what lingers, clients held back, adopted listeners."""
    budget, counters = budget_of(100)
    assert budget.free == 100
    counters.sessions = 10
    assert budget.take_pipe()
    assert budget.take_beside_clients()
    budget.spend(3)
    assert budget.free == 100 - 20 - 2 - 1 - 3
    budget.give_pipe_back()
    budget.give_back(4)
    assert budget.free == 80


def test_pipes_have_a_quarter_and_never_the_last_eighth() -> None:
    """A flow can do without a pipe; a client cannot do without descriptors."""
    budget, counters = budget_of(80)
    assert [budget.take_pipe() for _ in range(11)] == [True] * 10 + [False]
    for _ in range(10):
        budget.give_pipe_back()
    counters.sessions = 36
    assert not budget.take_pipe()
    counters.sessions = 35
    assert budget.take_pipe()


def test_what_can_be_done_without_is_refused() -> None:
    """A connection does not linger on a descriptor that is not there."""
    budget, counters = budget_of(10)
    counters.sessions = 5
    assert not budget.take_beside_clients()
    budget.spend()
    assert budget.free == -1


def test_what_lingers_leaves_the_last_eighth_to_clients() -> None:
    """A connection that is over is worth less than one that waits."""
    budget, counters = budget_of(80)
    counters.sessions = 36
    assert not budget.take_beside_clients()
    counters.sessions = 35
    assert budget.take_beside_clients()


def test_a_tiny_limit_leaves_one_session() -> None:
    """The reserve may be touched then: better one client than none."""
    budget = DescriptorBudget(WorkerCounters())
    budget.limit(20, 19)
    assert budget.free == 2
