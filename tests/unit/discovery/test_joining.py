"""Endpoints from targets and a member list together."""

from __future__ import annotations

from dataclasses import replace

from gateway.core.address import HostPort
from supervisor.core.discovery.adoption import AdoptedList
from supervisor.core.discovery.endpoints import Discovered, Findings, Problem, Source
from supervisor.core.discovery.joining import (
    choose,
    endpoint_for,
    find_seeds,
    follow,
    join,
    member_questions,
    with_addresses,
    without_doubles,
)
from supervisor.core.discovery.member_list import MemberTarget
from supervisor.core.discovery.questions import Answer, Outcome, Question, QuestionKind
from supervisor.core.discovery.resolution import Resolution


def adopted(
    *names: str, tls: bool = False, from_elsewhere: bool = True, member: str = ""
) -> AdoptedList:
    """``member``: whose client URLs all of them are; else each is another member's."""
    pairs = (name.rsplit(":", 1) for name in names)
    targets = tuple(
        MemberTarget(member or f"m{n}", HostPort(host, int(port)), tls)
        for n, (host, port) in enumerate(pairs)
    )
    return AdoptedList(cluster_id=1, targets=targets, from_elsewhere=from_elsewhere)


def seed(name: str, *addresses: str, priority: int = 0, weight: int = 0) -> Discovered:
    host, _, port = name.rpartition(":")
    return Discovered(name, host, int(port), addresses or (host,), priority=priority, weight=weight)


def nothing(_: Question) -> Outcome | None:
    return None


def answers(*addresses: str) -> Answer:
    return Answer(60, addresses=addresses)


def names(endpoints: tuple[Discovered, ...]) -> list[str]:
    return [each.name for each in endpoints]


def test_without_a_list_nothing_changes() -> None:
    """Seeds are as they were found, and all of them are used."""
    seeds = Findings((seed("10.0.0.1:1"),))
    assert join(seeds, None, nothing, srv=False) is seeds
    assert choose(seeds.endpoints, None, ()) == seeds.endpoints
    assert member_questions(None) == ()


def test_the_list_adds_members() -> None:
    """What only the list names is from it; what both name stays the operators' and learns TLS."""
    seeds = Findings((seed("10.0.0.1:1"),), (Problem("x", definite=True),))
    joined = join(seeds, adopted("10.0.0.1:1", "10.0.0.2:1", tls=True), nothing, srv=False)
    assert names(joined.endpoints) == ["10.0.0.1:1", "10.0.0.2:1"]
    assert [each.source for each in joined.endpoints] == [Source.FLAG, Source.MEMBERS]
    assert all(each.tls for each in joined.endpoints)
    plain = join(seeds, adopted("10.0.0.1:1", "10.0.0.2:1"), nothing, srv=False)
    assert not any(each.tls for each in plain.endpoints)
    assert joined.problems == seeds.problems


def test_what_the_list_adds_is_as_the_seeds_are() -> None:
    """Under SRV a member has the best priority and the mean weight of it."""
    seeds = Findings(
        (
            seed("a:1", "10.0.0.1", priority=1, weight=10),
            seed("b:1", "10.0.0.2", priority=1, weight=20),
            seed("c:1", "10.0.0.3", priority=2, weight=90),
        )
    )
    new = join(seeds, adopted("10.0.0.4:1"), nothing, srv=True).endpoints[-1]
    assert (new.priority, new.weight, new.srv, new.source) == (1, 15, True, Source.MEMBERS)
    assert join(Findings(), adopted("10.0.0.4:1"), nothing, srv=True).endpoints[0].weight == 0


def test_names_of_the_list_are_looked_up() -> None:
    """A name without addresses is a problem, and one that was never answered too."""
    question = Question(QuestionKind.SEARCH, "infra4.test")
    listed = adopted("infra4.test:1", "10.0.0.1:1")
    assert member_questions(listed) == (question,)
    assert with_addresses(listed, nothing).addresses == {}
    known = with_addresses(listed, lambda _: answers("10.0.0.4"))
    assert known.addresses == {"infra4.test": ("10.0.0.4",)}
    joined = join(Findings(), listed, nothing, srv=False)
    assert names(joined.endpoints) == ["10.0.0.1:1"]
    assert joined.problems == (Problem("host infra4.test: no answer yet", definite=False),)
    found = join(Findings(), listed, lambda _: answers("10.0.0.4"), srv=False)
    assert found.endpoints[0].addresses == ("10.0.0.4",)


def test_a_name_that_means_this_host_here_is_not_used() -> None:
    """A member's name that resolves to loopback here is not the member, if it is elsewhere."""
    listed = adopted("infra4.test:1")
    assert join(Findings(), listed, lambda _: answers("127.0.1.1"), srv=False).endpoints == ()
    here = replace(listed, from_elsewhere=False)
    assert join(Findings(), here, lambda _: answers("127.0.1.1"), srv=False).endpoints


def test_the_list_decides_which_are_used() -> None:
    """Seeds that are no members are known and not used."""
    listed = adopted("10.0.0.2:1", "10.0.0.3:1")
    known = join(
        Findings((seed("10.0.0.1:1"), seed("10.0.0.2:1"))), listed, nothing, srv=False
    ).endpoints
    assert names(known) == ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"]
    assert names(choose(known, listed, known)) == ["10.0.0.2:1", "10.0.0.3:1"]


def test_a_seed_keeps_its_name() -> None:
    """A member that operators named otherwise is used once, under their name."""
    listed = adopted("10.0.0.1:1", "10.0.0.2:1")
    known = join(
        Findings((seed("infra1.test:1", "10.0.0.1"),)), listed, nothing, srv=False
    ).endpoints
    assert names(choose(known, listed, known)) == ["infra1.test:1", "10.0.0.2:1"]


def used(listed: AdoptedList, *seeds: Discovered, answer: Answer | None = None) -> list[str]:
    known = join(Findings(seeds), listed, lambda _: answer, srv=False).endpoints
    return names(choose(known, listed, known))


def test_a_seed_with_the_addresses_of_several_client_urls_keeps_its_name() -> None:
    """They are one member's; what it has at other addresses and ports is used beside it."""
    one = adopted("10.0.0.1:1", "10.0.0.2:1", member="m")
    both = seed("infra.test:1", "10.0.0.1", "10.0.0.2")
    assert used(one, both) == ["infra.test:1"]
    assert used(one, seed("infra.test:1", "10.0.0.2")) == ["infra.test:1", "10.0.0.1:1"]
    assert used(one, replace(both, name="infra.test:2", port=2)) == ["10.0.0.1:1", "10.0.0.2:1"]
    more = adopted("10.0.0.1:1", "10.0.0.2:1", "10.0.0.2:2", "10.0.0.3:1", member="m")
    assert used(more, both) == ["infra.test:1", "10.0.0.2:2", "10.0.0.3:1"]
    strange = seed("infra.test:1", "10.0.0.1", "10.0.0.9")
    assert used(one, strange) == ["10.0.0.1:1", "10.0.0.2:1"], "one of its addresses is no member's"


def test_a_member_is_used_once_if_one_of_its_client_urls_is_the_seed() -> None:
    """The others that lead to the same addresses are doubles of it."""
    listed = adopted("infra.test:1", "10.0.0.2:1", "10.0.0.3:1", member="m")
    assert used(listed, seed("infra.test:1", "10.0.0.1", "10.0.0.2")) == [
        "infra.test:1",
        "10.0.0.3:1",
    ]
    other = seed("other.test:1", "10.0.0.2")
    assert used(listed, seed("infra.test:1", "10.0.0.2"), other) == [
        "infra.test:1",
        "other.test:1",
        "10.0.0.3:1",
    ]


def test_a_client_url_with_more_addresses_than_the_seed_is_the_seed() -> None:
    """Operators named one of the addresses of a member that has a name for all of them."""
    listed = adopted("infra.test:1", member="m")
    answer = answers("10.0.0.1", "10.0.0.2")
    assert used(listed, seed("10.0.0.1:1"), answer=answer) == ["10.0.0.1:1"]


def test_client_urls_that_lead_to_one_place_are_one_endpoint() -> None:
    """A member that tells its address and its name would have the share of two."""
    both = adopted("10.0.0.1:1", "infra.test:1", "infra.test:2", member="m")
    other = seed("10.0.0.9:1")
    assert used(both, other, answer=answers("10.0.0.1")) == ["10.0.0.1:1", "infra.test:2"]
    for elsewhere in (answers("10.0.0.3"), answers("10.0.0.1", "10.0.0.3")):
        found = used(both, other, answer=elsewhere)
        assert found == ["10.0.0.1:1", "infra.test:1", "infra.test:2"]


def test_one_name_for_all_members_is_replaced_by_them() -> None:
    """A seed with the addresses of several members is none of them."""
    listed = adopted("10.0.0.1:1", "10.0.0.2:1")
    known = join(
        Findings((seed("etcd.test:1", "10.0.0.1", "10.0.0.2"),)), listed, nothing, srv=False
    ).endpoints
    assert names(choose(known, listed, known)) == ["10.0.0.1:1", "10.0.0.2:1"]


def test_seeds_are_used_while_nobody_confirms_the_list() -> None:
    """And if nothing of the list can be used."""
    listed = adopted("10.0.0.2:1")
    known = join(Findings((seed("10.0.0.1:1"),)), listed, nothing, srv=False).endpoints
    assert choose(known, replace(listed, confirmed=False), known) == known
    assert choose(known[:1], listed, known) == known[:1]


def test_a_seed_of_another_cluster_is_not_used_beside_the_list() -> None:
    """Not while anything else is left; a member on the list stays, whatever it says."""
    listed = replace(
        adopted("10.0.0.2:1"),
        confirmed=False,
        outsiders=frozenset({"10.0.0.1:1", "10.0.0.2:1"}),
    )
    seeds = (seed("10.0.0.1:1"), seed("10.0.0.3:1"))
    known = join(Findings(seeds), listed, nothing, srv=False).endpoints
    assert names(choose(known, listed, known)) == ["10.0.0.3:1", "10.0.0.2:1"]
    assert choose(known[:1], listed, known) == known[:1]


def test_no_member_is_there_twice_while_nobody_confirms_the_list() -> None:
    """A seed under a name of its own is the member that it was before."""
    listed = replace(adopted("10.0.0.1:1", "10.0.0.2:1"), confirmed=False)
    seeds = (seed("infra1.test:1", "10.0.0.1"), seed("infra9.test:1", "10.0.0.9"))
    assert used(listed, *seeds) == ["infra1.test:1", "infra9.test:1", "10.0.0.2:1"]


def test_a_seed_is_the_member_whose_client_url_the_tls_check_does_not_reach() -> None:
    """It passed before, so it stays; nothing is said of the same address under another name."""
    listed = adopted("10.0.0.1:1", "10.0.0.2:1")
    seeds = Findings((seed("infra1.test:1", "10.0.0.1"), seed("infra3.test:1", "10.0.0.3")))
    found = join(seeds, listed, nothing, srv=True).endpoints
    passed = tuple(each for each in found if each.name != "10.0.0.1:1")
    waiting = {"10.0.0.1:1": "connection refused", "infra3.test:1": "connection refused"}
    result = follow(Resolution(passed, waiting=waiting, found=found, srv=True), listed)
    assert names(result.endpoints) == ["infra1.test:1", "10.0.0.2:1"]
    assert names(result.known) == ["infra1.test:1", "infra3.test:1", "10.0.0.2:1"]
    assert result.left_out == {"infra3.test:1": "TLS check: connection refused"}


def test_a_seed_that_did_not_pass_is_told_of_once() -> None:
    """Under the name that the operators gave it."""
    listed = adopted("10.0.0.1:1", "10.0.0.2:1")
    found = join(
        Findings((seed("infra1.test:1", "10.0.0.1"),)), listed, nothing, srv=True
    ).endpoints
    why = {"10.0.0.1:1": "speaks no TLS", "infra1.test:1": "speaks no TLS"}
    result = follow(Resolution(found[-1:], refused=why, found=found, srv=True), listed)
    assert names(result.endpoints) == names(result.known) == ["10.0.0.2:1"]
    assert result.left_out == {"infra1.test:1": "speaks no TLS"}


def test_a_seed_is_checked_for_its_client_urls() -> None:
    """They are the same places; all others are checked."""
    listed = adopted("10.0.0.1:1", "10.0.0.2:1")
    seeds = (seed("infra1.test:1", "10.0.0.1"), seed("infra3.test:1", "10.0.0.3"))
    found = join(Findings(seeds), listed, nothing, srv=True).endpoints
    result = without_doubles(Resolution(found, found=found), listed)
    assert names(result.endpoints) == ["infra1.test:1", "infra3.test:1", "10.0.0.2:1"]
    assert result.found == found
    assert without_doubles(Resolution(found, found=found), None).endpoints == found


def test_under_which_endpoint_a_client_url_is_used() -> None:
    """Its own, that of the seed that stands for it, or none."""
    listed = adopted("10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1")
    seeds = Findings((seed("infra1.test:1", "10.0.0.1"),))
    found = join(seeds, listed, nothing, srv=True).endpoints
    result = follow(Resolution(found[:-1], found=found), listed)
    urls = ("10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1", "absent.test:1")
    assert [endpoint_for(url, result) for url in urls] == ["infra1.test:1", "10.0.0.2:1", "", ""]


def test_which_seeds_are_on_the_list() -> None:
    """By name, by address, and those that DNS has no address for."""
    seeds = (seed("infra1.test:1", "10.0.0.1"), seed("10.0.0.2:1"), seed("10.0.0.9:1"))
    listed = adopted("10.0.0.1:1", "10.0.0.2:1", "infra3.test:1")
    found = join(Findings(seeds), listed, nothing, srv=False).endpoints
    absent = ("infra3.test:1", "infra4.test:1")
    result = Resolution(found=found, absent=absent)
    before = find_seeds(result, None)
    assert before.names == {*names(seeds), *absent}
    assert not before.members
    there = find_seeds(result, listed)
    assert there.names == before.names
    assert there.members == {"infra1.test:1", "10.0.0.2:1", "infra3.test:1"}
