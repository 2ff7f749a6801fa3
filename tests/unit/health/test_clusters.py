"""Whether all endpoints are members of one etcd cluster."""

from __future__ import annotations

from supervisor.core.health.clusters import Clusters

OURS, OTHER = 0xABC, 0xDEF


def test_who_is_of_another_cluster_than_most_is_described() -> None:
    """Only that one, and no longer when it has become a member of the others' cluster."""
    clusters = Clusters()
    for name, cluster_id in (("a", OURS), ("b", OURS), ("c", OTHER)):
        clusters.note(name, 0, cluster_id)
    assert clusters.describe_disagreement("a") == ""
    expected = "is a member of cluster def, and most endpoints are of abc"
    assert clusters.describe_disagreement("c") == expected
    clusters.note("c", 0, OURS)
    assert clusters.describe_disagreement("c") == ""


def test_where_nobody_has_a_majority_all_are_described() -> None:
    """One of them is a mistake; which, nobody here can tell."""
    clusters = Clusters()
    clusters.note("a", 0, OURS)
    clusters.note("b", 0, OTHER)
    expected = "is a member of cluster abc, and as many endpoints are of def"
    assert clusters.describe_disagreement("a") == expected
    assert clusters.describe_disagreement("b") != ""
    clusters.forget("b")
    assert clusters.describe_disagreement("a") == ""


def test_who_says_nothing_disagrees_with_nobody() -> None:
    """Not every release says of which cluster it is, and not on every port; and one that fails has
    said nothing of the process that answers next."""
    clusters = Clusters()
    clusters.note("a", 0, OURS)
    clusters.note("b", 0, OTHER)
    clusters.note("c", 0, 0)
    clusters.note("b", 0, 0)
    clusters.forget("never heard of")
    assert [clusters.describe_disagreement(name) for name in "abc"] == ["", "", ""]


def test_each_priority_may_lead_to_a_cluster_of_its_own() -> None:
    """One to fall back to may be another one on purpose."""
    clusters = Clusters()
    clusters.note("a", 0, OURS)
    clusters.note("b", 1, OTHER)
    assert clusters.describe_disagreement("b") == ""
    clusters.note("b", 0, OTHER)
    assert clusters.describe_disagreement("b") != ""
