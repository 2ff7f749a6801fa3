"""Member lists as etcd 3.4, 3.5 and 3.6 answer them, and where a gateway may dial."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.address import HostPort
from supervisor.core.discovery.member_list import (
    ClusterMember,
    MemberList,
    MemberTarget,
    is_loopback,
    parse_list,
    targets_of,
)

ANSWER = """
{"header":{"cluster_id":"15875391935852295136","member_id":"7383792418829112008","raft_term":"2"},
 "members":[
  {"ID":"7383792418829112008","name":"m0","peerURLs":["http://10.0.0.1:2380"],
   "clientURLs":["https://infra0.example.com:2379","http://10.0.0.1:2379"]},
  {"ID":"7","peerURLs":["http://10.0.0.2:2380"]},
  {"ID":"8","name":"m2","peerURLs":["http://10.0.0.3:2380"],
   "clientURLs":["http://10.0.0.3:2379"],"isLearner":true}]}
"""

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def member(*urls: str, name: str = "m", **more: Any) -> ClusterMember:
    return ClusterMember(id=1, name=name, client_urls=urls, **more)


def targets(
    *members: ClusterMember, from_elsewhere: bool = True
) -> tuple[list[str], dict[str, str]]:
    """The addresses to dial, and what is left out."""
    found, left_out = targets_of(MemberList(1, members), from_elsewhere=from_elsewhere)
    return [str(each.address) for each in found], left_out


def test_an_answer_is_read() -> None:
    """Started voting members give endpoints; their scheme says whether they speak TLS."""
    listed = parse_list(json.loads(ANSWER))
    assert listed.cluster_id == 15875391935852295136
    assert listed.voters == ("m0",)
    found, left_out = targets_of(listed, from_elsewhere=True)
    assert found == (
        MemberTarget("m0", HostPort("10.0.0.1", 2379)),
        MemberTarget("m0", HostPort("infra0.example.com", 2379), tls=True),
    )
    assert left_out == {"http://10.0.0.2:2380": "is not started", "m2": "is a learner"}


def test_a_member_without_anything_is_called_by_its_number() -> None:
    """Names and peer URLs may be missing, or be no texts."""
    document = {"header": {}, "members": [{"ID": "255", "name": 3, "peerURLs": 4}, "no member"]}
    listed = parse_list(document)
    assert (listed.cluster_id, [each.label for each in listed.members]) == (0, ["ff"])


def test_members_of_one_name_are_told_apart() -> None:
    """etcd lets members have the same name; each of them votes, and can be dialed or not."""
    twins = [
        {"ID": str(number), "name": "default", "clientURLs": [f"http://10.0.0.{number}:2379"]}
        for number in (0xA, 0xB)
    ]
    unnamed = [{"ID": "1"}, {"ID": "2"}]
    listed = parse_list({"header": {"cluster_id": "1"}, "members": [*twins, *unnamed]})
    assert listed.voters == ("default (a)", "default (b)")
    found, left_out = targets_of(listed, from_elsewhere=True)
    assert [each.member for each in found] == ["default (a)", "default (b)"]
    assert left_out == {"1": "is not started", "2": "is not started"}


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ([], "no JSON object"),
        ({"health": "true"}, "no member list"),
        ({"header": {}, "members": 3}, "no member list"),
        ({"header": {"cluster_id": "x"}, "members": []}, "cluster_id is no number"),
        ({"header": {}, "members": [{"ID": None}]}, "ID is no number"),
        ({"header": {"cluster_id": float("inf")}, "members": []}, "cluster_id is no number"),
    ],
)
def test_what_is_no_list_is_said(document: object, expected: str) -> None:
    """An answer of something else than etcd is an error that says what is wrong."""
    with pytest.raises(ValueError, match=expected):
        parse_list(document)


@given(anything)
def test_any_answer_is_read_or_refused(document: object) -> None:
    """Whatever a server answers raises nothing but ValueError."""
    with contextlib.suppress(ValueError):
        targets_of(parse_list(document), from_elsewhere=True)


def test_texts_of_members_are_plain() -> None:
    """A name cannot do anything to the terminal on which it is read, nor be endless."""
    named = {"ID": "1", "name": "m\x1b[2J" + "x" * 1000, "clientURLs": [5]}
    (read,) = parse_list({"header": {}, "members": [named]}).members
    assert read.name.startswith("m?[2Jxxx")
    assert len(read.name) == 300
    assert not read.started


def test_sockets_and_nonsense_are_left_out() -> None:
    """UNIX sockets are of the member's host; what is no address is said."""
    found, left_out = targets(member("unix://localhost:2379", "unixs:///run/x", "http://10.0.0.1"))
    assert not found
    assert left_out["m unix://localhost:2379"] == "is a UNIX socket of the member's host"
    assert left_out["m unixs:///run/x"] == "is a UNIX socket of the member's host"
    assert "port is missing" in left_out["m http://10.0.0.1"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", "[::]", "[::1]"])
def test_loopback_of_another_host_is_not_ours(host: str) -> None:
    """Loopback and unspecified addresses count only if the answer came over loopback."""
    found, left_out = targets(member(f"http://{host}:2379"))
    assert not found
    assert "the list came from elsewhere" in left_out[f"m {host}:2379"]
    assert targets(member(f"http://{host}:2379"), from_elsewhere=False) == ([f"{host}:2379"], {})


def test_loopback_beside_another_address_is_not_needed() -> None:
    """A member is dialed by its network address where it has one, whoever answered."""
    here = member("http://127.0.0.1:2379", "http://10.0.0.1:2379")
    found, left_out = targets(here, from_elsewhere=False)
    assert found == ["10.0.0.1:2379"]
    assert "the member has another address" in left_out["m 127.0.0.1:2379"]


def test_an_unspecified_address_beside_a_loopback_one_is_not_needed() -> None:
    """Both lead to the same socket: the member would have two shares."""
    for urls, used in (
        (("0.0.0.0:1", "127.0.0.1:1"), ["127.0.0.1:1"]),
        (("[::1]:1", "[::]:1", "0.0.0.0:1"), ["[::1]:1"]),
        (("0.0.0.0:1", "[::]:1"), ["0.0.0.0:1"]),
        (("0.0.0.0:1", "127.0.0.1:2", "localhost:2"), ["0.0.0.0:1", "127.0.0.1:2", "localhost:2"]),
    ):
        found, left_out = targets(member(*(f"http://{url}" for url in urls)), from_elsewhere=False)
        assert found == used
        assert left_out.keys() == {f"m {url}" for url in urls if url not in used}
        assert all("the member has another address" in why for why in left_out.values())


def test_an_address_counts_once() -> None:
    """Two URLs with the same address are one target, whatever their spelling."""
    found, _ = targets(member("http://10.0.0.1:2379", "http://10.0.0.1:2379/"))
    assert found == ["10.0.0.1:2379"]


def test_an_address_of_two_members_is_said() -> None:
    """Who names a load balancer as the address of every member learns what is wrong with that."""
    assert targets(member("http://10.0.0.1:1"), member("http://10.0.0.1:1", name="n")) == (
        ["10.0.0.1:1"],
        {"n 10.0.0.1:1": "is an address of m too"},
    )


def test_loopback_names() -> None:
    """Names of RFC 6761 mean the machine that says them, and so do addresses of the kind."""
    assert all(map(is_loopback, ("x.localhost", "::ffff:127.0.0.1", "0.0.0.0", "unix:/run/etcd")))
    assert not any(map(is_loopback, ("localhost.example.com", "10.0.0.1")))
