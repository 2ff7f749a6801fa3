"""Which cluster the seeds are of, and when that is settled."""

from __future__ import annotations

from supervisor.core.discovery.seed_votes import SeedVotes

A, B = 0xA, 0xB


def votes_of(**said: int) -> SeedVotes:
    votes = SeedVotes()
    votes.begin(tuple(said), (), None)
    for name, cluster in said.items():
        if cluster:
            votes.take(name, cluster)
    return votes


def test_more_than_half_of_the_seeds_settle_it() -> None:
    """One of two is not enough, and nothing is settled before a list is adopted."""
    votes = votes_of(a=A, b=0)
    assert votes.clusters == {"a": A}
    votes.begin("ab", (), None)
    assert (votes.settled, votes.doubt) == (False, "")
    votes.begin("ab", (), A)
    assert not votes.settled
    assert votes.doubt == (
        "1 of 2 seeds are known to be members of cluster a, expected more than half;"
        " not heard yet: b"
    )
    votes.take("b", B)
    assert votes.doubt == (
        "1 of 2 seeds are known to be members of cluster a, expected more than half"
    )
    votes.take("b", A)
    votes.begin("ab", (), A)
    assert (votes.settled, votes.doubt) == (True, "")


def test_seeds_on_the_list_are_of_its_cluster() -> None:
    """They need not answer for it, and what one of them said itself counts more."""
    votes = votes_of(a=A, b=0, c=0)
    votes.begin("abc", "ab", A)
    assert votes.settled
    votes = votes_of(a=A, b=B, c=0)
    votes.begin("abc", "ab", A)
    assert votes.clusters == {"a": A, "b": B}
    assert not votes.settled


def test_a_seed_of_the_adopted_cluster_stays_one() -> None:
    """A member that was rebuilt as one of another cluster leads nobody there."""
    votes = votes_of(a=A, b=0)
    votes.take("a", B)
    assert votes.clusters == {"a": B}, "nothing was adopted"
    votes.begin("ab", (), B)
    votes.take("a", A)
    votes.take("b", A)
    assert votes.clusters == {"a": B, "b": A}


def test_a_reload_asks_anew() -> None:
    """What was said before does not count, not even that a seed is on the list."""
    votes = votes_of(a=A, b=A, c=0)
    votes.begin("abc", "ab", A, by_operator=True)
    assert votes.clusters == {}
    votes.take("a", B)
    assert votes.clusters == {"a": B}


def test_only_seeds_of_now_have_votes() -> None:
    """One that left DNS has none any more, and a member that nobody named never had one."""
    votes = votes_of(a=A, b=B)
    votes.begin("ac", (), None)
    votes.take("m", A)
    assert votes.clusters == {"a": A}


def test_the_list_of_a_former_master_is_settled() -> None:
    """Whoever answers after an upgrade, until other targets begin anew."""
    votes = SeedVotes()
    votes.settle()
    votes.begin("abc", (), A)
    assert votes.settled
    votes.forget()
    assert not votes.settled
