"""Whether a member list is adopted."""

from __future__ import annotations

import random
from collections.abc import Iterable

from gateway.core.address import HostPort
from supervisor.core.discovery.adoption import (
    AdoptedList,
    Heard,
    Hearing,
    Proposal,
    Refusal,
    Unchanged,
    judge,
    order_to_ask,
    weigh,
)
from supervisor.core.discovery.member_list import ClusterMember, MemberList, MemberTarget
from supervisor.core.discovery.seed_votes import SeedVotes

T = [MemberTarget(f"m{n}", HostPort(f"10.0.0.{n}", 2379)) for n in range(4)]


def heard(
    *numbers: int,
    cluster_id: int = 1,
    leaderless: bool = False,
    learner: int = -1,
    by: str = "10.0.0.0:2379",
) -> Heard:
    members = tuple(
        ClusterMember(
            id=n, name=f"m{n}", client_urls=(f"http://10.0.0.{n}:2379",), learner=n == learner
        )
        for n in numbers
    )
    return Heard(
        listed=MemberList(cluster_id, members),
        endpoint=by,
        from_elsewhere=True,
        leaderless=leaderless,
    )


def adopted(*numbers: int, cluster_id: int = 1) -> AdoptedList:
    return AdoptedList(
        cluster_id=cluster_id, targets=tuple(T[n] for n in numbers), from_elsewhere=True
    )


SEEDS = "abcxy"


def votes_of(seeds: Iterable[str], followed: int | None = None, members: str = "") -> SeedVotes:
    votes = SeedVotes()
    votes.begin(tuple(seeds), tuple(members), followed)
    return votes


def settled() -> SeedVotes:
    votes = SeedVotes()
    votes.settle()
    return votes


def proposal(*numbers: int) -> Proposal:
    proposed = weigh(heard(*numbers), None, any_cluster=False)
    assert isinstance(proposed, Proposal)
    return proposed


def test_the_first_list_is_proposed() -> None:
    """Without a list before, any cluster's list is proposed."""
    assert proposal(0, 1, 2).adopted == adopted(0, 1, 2)


def test_the_same_list_needs_no_dial() -> None:
    """What agrees with the adopted list changes nothing, but for members that are left out."""
    same = weigh(heard(0, 1, 2, 3, learner=3), adopted(0, 1, 2), any_cluster=False)
    assert same == Unchanged({"m3": "is a learner"})


def test_a_new_member_is_proposed() -> None:
    """A list that differs is proposed."""
    assert isinstance(weigh(heard(0, 1, 2, 3), adopted(0, 1, 2), any_cluster=False), Proposal)


def test_another_cluster_is_refused() -> None:
    """Another cluster id is never adopted by itself, even with the same members."""
    refused = weigh(heard(0, 1, 2, cluster_id=0xBAD), adopted(0, 1, 2), any_cluster=False)
    assert isinstance(refused, Refusal)
    assert refused.reason == (
        "10.0.0.0:2379 is a member of cluster bad, expected 1; a reload adopts the other cluster"
    )


def test_a_reload_adopts_another_cluster() -> None:
    """An operator who reloads lets the other cluster be followed, even with the same members."""
    proposed = weigh(heard(0, 1, 2, cluster_id=0xBAD), adopted(0, 1, 2), any_cluster=True)
    assert isinstance(proposed, Proposal)
    assert proposed.adopted.cluster_id == 0xBAD


def test_a_member_without_a_leader_is_not_believed() -> None:
    """Its list may be an old one; that it is the adopted one is no news and no failure."""
    refused = weigh(heard(0, 1, leaderless=True), adopted(0, 1, 2), any_cluster=False)
    assert isinstance(refused, Refusal)
    assert "knows no leader" in refused.reason
    same = weigh(heard(0, 1, 2, leaderless=True), adopted(0, 1, 2), any_cluster=False)
    assert isinstance(same, Unchanged)


def test_a_list_of_nobody_is_refused() -> None:
    """A list without one usable client URL says why each cannot be used."""
    refused = weigh(heard(0, learner=0), None, any_cluster=False)
    assert refused == Refusal("no client URL can be used: m0 is a learner")
    assert weigh(heard(), None, any_cluster=False) == Refusal(
        "no client URL can be used: the list is empty"
    )


def test_a_list_without_end_is_refused() -> None:
    """Each client URL is dialed, so a member cannot make the gateway dial the world."""
    many = tuple(f"http://10.1.{n // 250}.{n % 250}:2379" for n in range(101))
    listed = MemberList(1, (ClusterMember(id=1, name="m", client_urls=many),))
    told = Heard(listed=listed, endpoint="e", from_elsewhere=True)
    refused = weigh(told, None, any_cluster=False)
    assert refused == Refusal("101 client URLs, expected at most 100")


def test_a_majority_must_be_reached() -> None:
    """Two of three are enough, one of three and two of four are not."""
    three = proposal(0, 1, 2)
    assert judge(three, {T[0]: "refused"}) == three.adopted
    refused = judge(three, {T[0]: "refused", T[2]: "timeout"})
    assert refused == Refusal(
        "1 of 3 voting members can be dialed, expected a majority"
        " (10.0.0.0:2379: refused; 10.0.0.2:2379: timeout)"
    )
    assert isinstance(judge(proposal(0, 1, 2, 3), {T[0]: "x", T[1]: "x"}), Refusal)


def test_members_that_are_left_out_count_as_not_reached() -> None:
    """A voter whose only address is on its own loopback is a voter all the same."""
    listed = MemberList(
        1,
        (
            ClusterMember(id=0, name="m0", client_urls=("http://10.0.0.0:2379",)),
            ClusterMember(id=1, name="m1", client_urls=("http://127.0.0.1:2379",)),
        ),
    )
    told = Heard(listed=listed, endpoint="e", from_elsewhere=True)
    proposed = weigh(told, None, any_cluster=False)
    assert isinstance(proposed, Proposal)
    refused = judge(proposed, {})
    assert isinstance(refused, Refusal)
    assert "1 of 2" in refused.reason
    assert "m1 127.0.0.1:2379" in refused.reason


def test_active_ones_are_asked_first() -> None:
    """Who answered last comes first, then active ones in a random order, then others."""
    names = ("a", "b", "c", "d")
    order = order_to_ask(names, {"b", "d"}, last="d", draw=lambda _: 0, most=3)
    assert order == ("d", "b", "a")
    assert order_to_ask(names, {"b", "d"}, last="", draw=lambda _: 2, most=2) == ("d", "b")


def test_all_are_asked_if_none_is_active() -> None:
    """In an outage whoever answers ends it."""
    order = order_to_ask(("a", "b", "c"), (), last="c", draw=lambda _: 1, most=1)
    assert order == ("c", "b", "a")
    assert order_to_ask((), (), last="", draw=random.randrange, most=1) == ()


def test_the_first_answer_that_may_be_followed_counts() -> None:
    """What is refused, and a member without a leader, keeps nobody else from being asked."""
    hearing = Hearing(adopted(0, 1, 2), settled())
    assert not hearing.take(heard(0, cluster_id=0xBAD))
    assert hearing.outcome is None
    assert not hearing.take(heard(0, 1, 2, leaderless=True))
    assert hearing.outcome == (heard(0, 1, 2, leaderless=True), Unchanged())
    assert not hearing.take(heard(0, 1, 2, 3, leaderless=True))
    assert not hearing.take(heard(0, 1, 2, leaderless=True, learner=3))
    assert hearing.take(heard(1, 2))
    assert hearing.outcome is not None
    assert isinstance(hearing.outcome[1], Proposal)
    assert [reason.partition(" ")[2] for reason in hearing.refusals] == [
        "is a member of cluster bad, expected 1; a reload adopts the other cluster",
        "knows no leader, its list may be an old one",
    ]


def test_the_cluster_of_most_counts() -> None:
    """One seed of another cluster, whoever answers first, does not decide for the others."""
    hearing = Hearing(None, votes_of(SEEDS))
    assert hearing.outcome is None
    assert hearing.refusals == []
    assert not hearing.take(heard(3, cluster_id=0xBAD, by="x"))
    assert hearing.outcome is not None
    assert not hearing.take(heard(0, 1, by="a"))
    assert hearing.outcome is None
    assert hearing.refusals == [
        "members of different clusters, as many of one as of another: a of 1; x of bad"
    ]
    assert not hearing.take(heard(0, 1, by="b", leaderless=True))
    assert hearing.outcome == (heard(0, 1, by="a"), proposal(0, 1))
    assert hearing.refusals == [
        "b knows no leader, its list may be an old one",
        "x is a member of cluster bad, expected 1, which as many or more are members of",
    ]


def test_a_cluster_without_a_leader_is_not_left_for_another() -> None:
    """Where most are members of one that may tell an old list, nothing is adopted."""
    hearing = Hearing(None, votes_of(SEEDS))
    for told in (
        heard(0, leaderless=True, by="a"),
        heard(3, cluster_id=0xBAD, by="x"),
        heard(0, leaderless=True, by="b"),
    ):
        assert not hearing.take(told)
    assert hearing.outcome is None
    assert hearing.refusals[0] == "a knows no leader, its list may be an old one"


def test_a_reload_stays_with_the_cluster_of_as_many() -> None:
    """Another one is adopted by a reload if more are members of it than of the adopted one."""
    hearing = Hearing(adopted(0, 1), settled(), by_operator=True)
    assert not hearing.take(heard(3, cluster_id=0xBAD, by="x"))
    assert not hearing.take(heard(0, 1, by="a"))
    assert hearing.outcome == (heard(0, 1, by="a"), Unchanged())
    assert not hearing.take(heard(3, cluster_id=0xBAD, by="y"))
    assert hearing.outcome is not None
    assert hearing.outcome[0].endpoint == "x"


def test_who_is_asked_first_counts_where_all_are_heard() -> None:
    """Members of one cluster may describe it differently, and chance does not choose the list."""
    hearing = Hearing(None, votes_of(SEEDS))
    for told in (heard(0, 1, by="b"), heard(0, by="a"), heard(0, 1, by="c")):
        hearing.take(told)
    hearing.put_in_order(("a", "b", "c", "d"))
    assert hearing.outcome == (heard(0, by="a"), proposal(0))


def test_seeds_that_are_silent_now_keep_their_vote() -> None:
    """That one of two clusters is away for a moment does not decide for the other one."""
    votes = votes_of("ab")
    hearing = Hearing(None, votes)
    hearing.take(heard(0, by="a"))
    hearing.take(heard(3, cluster_id=0xBAD, by="b"))
    votes.begin("ab", (), None)
    hearing = Hearing(None, votes)
    hearing.take(heard(3, cluster_id=0xBAD, by="b"))
    assert hearing.outcome is None
    assert hearing.refusals == [
        "members of different clusters, as many of one as of another: a of 1; b of bad"
    ]


def test_a_list_of_few_seeds_gives_way_to_one_of_more() -> None:
    """Until it is settled, the seeds decide, and members that are no seeds have no vote."""
    votes = votes_of("abx", 0xBAD, "x")
    assert not votes.settled
    hearing = Hearing(adopted(3, cluster_id=0xBAD), votes)
    for name in ("x", "10.0.0.3:2379", "10.0.0.2:2379"):
        assert not hearing.take(heard(3, cluster_id=0xBAD, by=name))
    assert not hearing.take(heard(0, 1, by="a"))
    assert hearing.outcome == (heard(3, cluster_id=0xBAD, by="x"), Unchanged())
    assert hearing.refusals == [
        "a is a member of cluster 1, expected bad, which as many or more are members of"
    ]
    assert not hearing.take(heard(0, 1, by="b"))
    assert hearing.outcome is not None
    assert hearing.outcome[0].endpoint == "a"
    assert isinstance(hearing.outcome[1], Proposal)


def test_without_votes_the_adopted_list_stays() -> None:
    """Seeds that are all silent or gone do not make what its members say worthless."""
    hearing = Hearing(adopted(0, 1), votes_of("", 1))
    assert not hearing.take(heard(0, 1, by="m"))
    assert hearing.outcome == (heard(0, 1, by="m"), Unchanged())
