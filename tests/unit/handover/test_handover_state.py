"""The handover state is read by images of other releases, in both directions."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.address import HostPort
from gateway.core.messages import MAX_SLOTS
from supervisor.core.admin.views import DiscoveryView, MemberSyncView, ReloadView
from supervisor.core.certificates import CertificateEnd
from supervisor.core.discovery.adoption import AdoptedList
from supervisor.core.discovery.endpoints import Discovered
from supervisor.core.discovery.member_list import MemberTarget
from supervisor.core.handover_document import FORMAT, decode, encode
from supervisor.core.handover_state import HandoverState, Image
from supervisor.core.health.health_view import HealthView
from supervisor.core.json_values import kinds_of
from supervisor.core.roster_member import Removed, Since
from supervisor.core.workers.worker_id import WorkerId
from supervisor.handover.state import read_state

KEPT = sorted((Path(__file__).parent / "states").glob("*.json"))

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def kept(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((Path(__file__).parent / "states" / name).read_text())
    return document


def through_json(document: object) -> Any:
    return json.loads(json.dumps(document))


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_states_of_earlier_releases_are_understood(path: Path) -> None:
    """What they knew is known: workers, endpoints with their health, figures, events."""
    state = decode(json.loads(path.read_text()))
    assert state.workers == 2
    assert state.gens == {0: 1, 1: 1}
    assert {"scoreboard", "listener.0.0", "ctl.1.1"} <= state.descriptors.keys()
    assert [each.name for each in state.found] == ["127.0.0.1:14001", "127.0.0.1:14002"]
    assert state.found[0].addresses == ("127.0.0.1",)
    assert {name: view.active for name, view in state.health.items()} == {
        "127.0.0.1:14001": True,
        "127.0.0.1:14002": False,
    }
    assert state.totals.sums().overall.sessions_total == 3
    assert state.snapshot_version == 2
    assert state.reload.last_result == "complete"
    assert state.discovery is not None
    assert state.started_at == pytest.approx(1795646900.13, abs=0.1)
    assert [event["msg"] for event in state.events]


def test_everything_comes_back() -> None:
    """What one image writes, an image of the same release reads without a loss."""
    state = decode(kept("1.0.0.json"))
    state.draining = (WorkerId(1, 7),)
    state.drains_until = {WorkerId(1, 7): 12.5}
    state.own_gens, state.replacing = {0: 3, 1: 7}, (WorkerId(0, 3),)
    state.failure, state.command = "told so", ("/opt/current/bin/etcd-gateway", "start")
    state.listen_given, state.listen, state.admin = ("localhost:1",), ("[::1]:1",), ("unix:/x",)
    state.listen_held = ("127.0.0.1:2",)
    state.handover, state.drain_timeout_s = True, 2.5
    state.restarts = {"exit": 3}
    state.certificates = (CertificateEnd("a:1", "10.0.0.1", 1, 9.5, 7.0),)
    state.health["127.0.0.1:14001"] = replace(
        state.health["127.0.0.1:14001"], degraded="NOSPACE", etcd_version="3.5.1"
    )
    state.member_list = AdoptedList(
        cluster_id=0xE77599499CA84AE2,
        targets=(
            MemberTarget("m0", HostPort("10.0.0.1", 2379)),
            MemberTarget("m1", HostPort("infra1.example.com", 2379), tls=True),
        ),
        from_elsewhere=True,
        confirmed=False,
        outsiders=frozenset({"10.0.0.9:2379"}),
        addresses={"infra1.example.com": ("10.0.0.2", "fd00::2")},
    )
    state.member_list_of = "10.0.0.1:2379 False"
    state.tls_check = "example.com system off"
    state.discovery = DiscoveryView(
        by_source={"members": {"success": 2}},
        results={"success": 1},
        member_sync=MemberSyncView(last_success_at=1.5, results={"success": 2}),
    )
    gone = Discovered("gone:1", "gone", 1, ("10.0.0.9",), srv=True, owners=("_etcd._tcp.test",))
    state.removed = (Removed(found=gone, at=5.0, grace_s=30.0, active=False, sessions=2),)
    state.since = Since(draining={"a:1": 7.5}, returned={"b:1": 8.5})
    state.searched = {"db": "db.example.com"}
    state.workers_given, state.forked_with = 4, "--log-format=json"
    state.reload = ReloadView(last_at=2.5, last_result="failed", last_error="x", refused=True)
    state.started_at, state.started_boot_s = 1.7e9, 12.5
    again = decode(through_json(encode(state)))
    nothing = HandoverState()
    for name in (each.name for each in fields(HandoverState) if each.name != "totals"):
        assert getattr(state, name) != getattr(nothing, name), f"give {name} a value above"
        assert getattr(again, name) != getattr(nothing, name), f"{name} is lost"
    assert again.removed[0].found.owners == gone.owners  # the others compare without them
    assert again.member_list is not None
    assert again.member_list.addresses == {"infra1.example.com": ("10.0.0.2", "fd00::2")}
    assert through_json(encode(again)) == through_json(encode(state))
    assert encode(state)["format"] == FORMAT


def test_what_is_written_is_not_copied_first() -> None:
    """The record is written at each change of an endpoint, and has thousands of them."""
    view = HealthView(active=True, since=1.0, probes={"success": 3}, transitions={"active": 1})
    written = encode(HandoverState(health={"a:1": view}))["facts"]["health"]["a:1"]
    assert written["probes"] is view.probes
    assert written["transitions"] is view.transitions


def test_an_end_of_a_drain_that_makes_no_sense_is_left_out() -> None:
    """A worker then has the time that the configuration gives it."""
    document = kept("1.0.0.json")
    document["facts"]["drains_until"] = [[0, 1, 7.5], [0, 2, "x"], [-1, 1, 1.0], [], [1.0], 5]
    assert decode(document).drains_until == {WorkerId(0, 1): 7.5}


def test_a_removed_endpoint_that_makes_no_sense_is_left_out() -> None:
    """Without its endpoint, or with an instant that is none."""
    document = kept("1.0.0.json")
    gone = document["facts"]["found"][0]
    wrong: list[object] = [5, {}, {"found": 5, "at": 1.0, "grace_s": 1.0}]
    wrong += [{"found": gone, "at": "x", "grace_s": 1.0}]
    document["facts"]["removed"] = [*wrong, {"found": gone, "at": 1.0, "grace_s": 2.0}]
    (removed,) = decode(document).removed
    assert (removed.found.name, removed.at, removed.grace_s) == ("127.0.0.1:14001", 1.0, 2.0)


def test_a_member_list_that_makes_no_sense_is_none() -> None:
    """A list without a cluster or without a target that can be dialed is as good as none."""
    document = kept("1.0.0.json")
    facts = document["facts"]
    facts["discovery"] = {"results": 5, "by_source": {"flag": {"success": 1}}}
    lists: list[object] = [5, {}, {"cluster_id": "x"}, {"cluster_id": "a"}]
    lists += [{"cluster_id": "a", "targets": [{"url": "no address"}, 5]}]
    for each in lists:
        facts["member_list"] = each
        assert decode(document).member_list is None
    odd = {"a": ["10.0.0.1"], "b": ["no address"], "c": 5, "d": []}
    target = {"member": "m", "url": "a:1"}
    facts["member_list"] = {"cluster_id": "a", "targets": [target], "addresses": odd}
    listed = decode(document).member_list
    assert listed is not None
    assert listed.addresses == {"a": ("10.0.0.1",)}
    discovery = decode(document).discovery
    assert discovery is not None
    assert (discovery.results, discovery.by_source) == ({}, {"flag": {"success": 1}})


def test_nothing_is_needed_and_nothing_unknown_hurts() -> None:
    """Missing keys have defaults, keys of later releases are skipped at every level."""
    empty = encode(HandoverState())
    documents: list[object] = [{}, [], None, 5, {"facts": []}, {"facts": {}}, {"fds": []}]
    for document in documents:
        assert encode(decode(document)) == empty
    later = kept("1.0.0.json")
    before = encode(decode(later))
    later["later"] = {"a": 1}
    later["facts"]["later"] = [1]
    later["image"]["later"] = 1
    later["facts"]["found"][0]["later"] = "x"
    later["facts"]["health"]["127.0.0.1:14001"]["later"] = "x"
    later["facts"]["totals"]["dead"]["later"] = 1
    assert encode(decode(later)) == before


def test_what_is_incomplete_is_left_out() -> None:
    """An endpoint, a judgement or an image that lacks what it needs is as good as none."""
    document = kept("1.0.0.json")
    del document["facts"]["found"][0]["port"]
    document["facts"]["found"][1]["addresses"] = 5
    del document["facts"]["health"]["127.0.0.1:14001"]["active"]
    document["facts"]["health"]["127.0.0.1:14002"] = "ill"
    del document["facts"]["totals"]["dead"]
    document["facts"]["gens"] = [[0, 1], [2], "x", [1, "a"]]
    document["facts"]["events"].append("no event")
    document["image"] = {"argv": []}
    whole = {"endpoint": "a:1", "address": "10.0.0.1", "port": 1, "not_after": 9}
    partly = [{**whole, name: None} for name in ("endpoint", "address", "port", "not_after")]
    document["facts"]["certificates"] = [*partly, {}, 5, {**whole, "warned_at": "x"}]
    state = decode(document)
    assert state.certificates == (CertificateEnd("a:1", "10.0.0.1", 1, 9),)
    assert state.found == ()
    assert state.health == {}
    assert state.totals.sums().overall.sessions_total == 0
    assert state.gens == {0: 1}
    assert len(state.events) == 3
    assert state.image is None
    document["image"] = {"argv": ["/bin/x"]}
    assert decode(document).image == Image(argv=("/bin/x",))


@pytest.mark.slow
@given(st.sampled_from(sorted(kept("1.0.0.json")["facts"])), anything)
def test_no_value_of_a_wrong_type_ends_the_next_image(key: str, value: object) -> None:
    """Whatever is under a key, the state is read with each value of its type, and written again."""
    document = kept("1.0.0.json")
    document["facts"][key] = value
    for each in (document, {"fds": value, "image": value, "failure": value, "command": value}):
        state = decode(each)
        assert is_of(state, HandoverState), state
        json.dumps(encode(state), default=str)


def is_of(value: object, kind: Any) -> bool:
    """Whether the value is of the type, and whatever it holds is, too."""
    within, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return True
    if within is UnionType:
        return any(is_of(value, each) for each in arguments)
    if within in (dict, Mapping):
        names, values = arguments
        return isinstance(value, Mapping) and all(
            is_of(name, names) and is_of(each, values) for name, each in value.items()
        )
    if arguments:
        return isinstance(value, within) and all(is_of(each, arguments[0]) for each in value)
    if kind is float:
        return isinstance(value, int | float)
    if is_dataclass(kind):
        kinds = kinds_of(kind)  # type: ignore[arg-type]
        return isinstance(value, kind) and all(  # type: ignore[arg-type]
            is_of(getattr(value, name), each) for name, each in kinds.items()
        )
    return isinstance(value, kind)


@pytest.mark.parametrize("content", [b"", b"\xff", b"null", b"[" * 100_000, b"9" * 10_000])
def test_a_document_that_is_none_says_nothing(content: bytes) -> None:
    document = os.memfd_create("handover")
    try:
        os.write(document, content)
        assert encode(read_state(document)) == encode(HandoverState())
    finally:
        os.close(document)


def test_a_pipe_is_no_document() -> None:
    pipe_r, pipe_w = os.pipe()
    try:
        assert encode(read_state(pipe_r)) == encode(HandoverState())
    finally:
        os.close(pipe_r)
        os.close(pipe_w)


def test_a_slot_that_no_worker_can_have_counts_for_nothing() -> None:
    """A master that took it for one of its own would make sockets for thousands of slots."""
    document = kept("1.0.0.json")
    document["facts"] |= {"gens": [[MAX_SLOTS, 1], [MAX_SLOTS - 1, 7]]}
    assert decode(document).gens == {MAX_SLOTS - 1: 7}


@pytest.mark.parametrize("number", [-1, 10**30])
def test_a_number_that_cannot_be_one_counts_for_nothing(number: int) -> None:
    """A version that no message can carry, or a slot that nobody could fill."""
    document = kept("1.0.0.json")
    facts = document["facts"]
    facts |= {"wanted": number, "workers_given": number, "version": number}
    facts |= {"gens": [[number, 1], [0, number], [1, 7]], "leaving": [[number, 1], [1, 7]]}
    state = decode(document)
    assert (state.workers, state.workers_given, state.snapshot_version) == (0, 0, 0)
    assert (state.gens, state.draining) == ({1: 7}, (WorkerId(1, 7),))


@pytest.mark.parametrize(
    "part",
    [
        {"host": None},
        {"port": -1},
        {"port": "x"},
        {"port": 70_000},
        {"addresses": []},
        {"addresses": ["no-ip"]},
        {"addresses": "a"},
        {"name": 5},
    ],
)
def test_an_endpoint_that_nobody_can_dial_is_left_out(part: dict[str, Any]) -> None:
    """It would end the start, or each session, or the status document."""
    document = kept("1.0.0.json")
    found = document["facts"]["found"]
    document["facts"]["found"] = [found[0] | part, found[0] | {"priority": "a", "weight": None}]
    document["facts"]["removed"] = [{"found": found[0] | part, "at": 1.0, "grace_s": 1.0}]
    state = decode(document)
    assert state.removed == ()
    assert [(each.name, each.priority) for each in state.found] == [("127.0.0.1:14001", 0)]


@pytest.mark.parametrize("text", ["nonsense", "127.0.0.1:70000", "unix:"])
def test_listen_addresses_of_which_one_is_none_are_not_believed(text: str) -> None:
    document = kept("1.0.0.json")
    document["facts"]["listen"] = ["127.0.0.1:23790", text]
    assert decode(document).listen == ()


@pytest.mark.parametrize("instant", [1e12, 10**30, "x", True])
def test_an_instant_that_no_calendar_has_is_none(instant: object) -> None:
    """Nobody could show it, or count from it."""
    document = kept("1.0.0.json")
    document["facts"]["started_at"] = instant
    document["facts"]["since"] = {"draining": {"a:1": instant, "b:1": 7.5}}
    state = decode(document)
    assert state.started_at is None
    assert state.since == Since(draining={"b:1": 7.5})


def test_workers_listen_where_they_did_until_those_of_this_image_are_ready() -> None:
    """An address of this image that could not be had is not one that is held."""
    state = HandoverState(listen=("127.0.0.1:2",))
    assert state.held == ("127.0.0.1:2",)
    state.listen_held = ("127.0.0.1:1",)
    assert state.held == ("127.0.0.1:1",)
