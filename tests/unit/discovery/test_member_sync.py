"""Member sync: endpoints follow what members answer, and survive what they do not."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import json
import os
import re
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.core.address import HostPort
from supervisor.cli.followed_members import follow_members
from supervisor.core.config import Config, StaticTarget
from supervisor.core.discovery.adoption import AdoptedList
from supervisor.core.discovery.endpoints import Discovered
from supervisor.core.discovery.system_names import Files
from supervisor.discovery.loop import DiscoveryLoop
from supervisor.discovery.means import Means
from supervisor.discovery.targets import Targets
from tests.dns import NameServer
from tests.logbook import Logbook
from tests.servers import Server
from tests.support import eventually, free_port


class Member:
    """A double of an etcd member's JSON gateway; ``urls`` is the list it tells, by name."""

    def __init__(self) -> None:
        self.urls: dict[str, Sequence[str]] = {}
        self.cluster_id = 0xABC
        self.leader = "1"
        self.refusal = b""
        """``%d`` in it is another number in each answer."""
        self._numbers = itertools.count()
        self.before_answer: Callable[[], None] = lambda: None
        self.asked = 0
        self._server = Server(self._serve)
        self.url = f"http://127.0.0.1:{self._server.port}"
        self.name = f"127.0.0.1:{self._server.port}"

    def close(self) -> None:
        self._server.close()

    def hold(self) -> threading.Event:
        """Lists are answered once the event is set."""
        go_on = threading.Event()

        def wait() -> None:
            assert go_on.wait(60)

        self.before_answer = wait
        return go_on

    def _serve(self, conn: socket.socket) -> None:
        while request := _read_request(conn):
            status, body = b"200 OK", self._answer(request)
            if self.refusal:
                status = b"401 Unauthorized"
                body = self.refusal.replace(b"%d", b"%d" % next(self._numbers))
            head = b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n" % (status, len(body))
            conn.sendall(head + body)

    def _answer(self, request: bytes) -> bytes:
        header = {"cluster_id": str(self.cluster_id)}
        if b"/v3/cluster/member/list" not in request:
            return json.dumps({"header": header, "leader": self.leader}).encode()
        self.asked += 1
        self.before_answer()
        members = [
            {"ID": str(n), "name": name, "clientURLs": list(urls)}
            for n, (name, urls) in enumerate(self.urls.items())
        ]
        return json.dumps({"header": header, "members": members}).encode()


def _read_request(conn: socket.socket) -> bytes:
    """One request with its body; empty at the end of the stream, and for a TLS handshake."""
    got = b""
    while not got.startswith(b"\x16"):
        head, end, body = got.partition(b"\r\n\r\n")
        length = re.search(rb"Content-Length: (\d+)", head)
        if end and len(body) >= int(length[1] if length else 0):
            return got
        if not (data := conn.recv(4096)):
            return b""
        got += data
    conn.shutdown(socket.SHUT_RDWR)
    return b""


@pytest.fixture
def cluster() -> Iterator[list[Member]]:
    """Three members that all tell of all three, and a fourth that nobody tells of."""
    members = [Member() for _ in range(4)]
    tell(members, 0, 1, 2)
    yield members
    for member in members:
        member.close()


def tell(members: list[Member], *numbers: int) -> None:
    """All members tell of these, by number."""
    for member in members:
        member.urls = {f"m{n}": [members[n].url] for n in numbers}


def names(members: list[Member], *numbers: int) -> list[str]:
    return sorted(members[n].name for n in numbers)


class Synced:
    """A discovery loop on the members' addresses, with what it told and logged."""

    def __init__(self, config: Config, files: Files) -> None:
        self.config = config
        self.log = Logbook()
        self.found: tuple[Discovered, ...] = ()
        self.active: set[str] | None = None
        """None: all of them."""
        self.draws: Iterator[int] = itertools.repeat(0)
        self.it = DiscoveryLoop(
            config, self.log, self._take, active_names=self._active, files=files, draw=self._draw
        )

    def _draw(self, most: int) -> int:
        return next(self.draws) % most

    def _take(self, found: tuple[Discovered, ...]) -> None:
        self.found = found

    def _active(self) -> list[str]:
        names = [each.name for each in self.found]
        return [name for name in names if self.active is None or name in self.active]

    @property
    def names(self) -> list[str]:
        return sorted(each.name for each in self.found)

    @property
    def error(self) -> str:
        view = self.it.view.member_sync
        return (view and view.last_error) or ""


def failures(synced: Synced) -> int:
    return synced.it.view.by_source.get("members", {}).get("failure", 0)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    (tmp_path / "hosts").write_text("127.0.0.1 localhost\n")
    (tmp_path / "resolv.conf").write_text("options attempts:1 timeout:30\n")
    return Files(str(tmp_path / "hosts"), str(tmp_path / "resolv.conf"), domain="")


def static(*names: str) -> Config:
    pairs = (name.rsplit(":", 1) for name in names)
    return Config(
        endpoints=tuple(StaticTarget(HostPort(host, int(port))) for host, port in pairs),
        endpoints_given=True,
        member_sync_s=0.1,
        health_timeout_s=5,
        listen_addr=(HostPort("127.0.0.1", 1),),
    )


@contextlib.asynccontextmanager
async def following(config: Config, files: Files) -> AsyncIterator[Synced]:
    synced = Synced(config, files)
    await synced.it.start(config.listen_addr)
    try:
        yield synced
    finally:
        await synced.it.close()


async def asked_again(members: list[Member]) -> None:
    """Until the members were asked twice from now on."""
    before = sum(member.asked for member in members)
    await eventually(lambda: sum(member.asked for member in members) >= before + 2)


def test_endpoints_follow_the_list(cluster: list[Member], files: Files) -> None:
    """One seed is enough to find all; who comes and who leaves the list is followed."""

    async def scene() -> None:
        async with following(static(cluster[0].name), files) as f:
            await eventually(lambda: f.names == names(cluster, 0, 1, 2))
            assert {each.name: each.source for each in f.found}[cluster[1].name] == "members"
            assert f.found[0].source == "flag"
            tell(cluster, 1, 2, 3)
            await eventually(lambda: f.names == names(cluster, 1, 2, 3))
            assert f.log.said("endpoints changed")[-1] == {
                "added": (cluster[3].name,),
                "removed": (cluster[0].name,),
                "changed": (),
                "source": "members",
            }
            view = f.it.view
            assert view.member_sync is not None
            assert view.member_sync.last_success_at
            assert view.member_sync.cluster_id == "abc"
            assert view.by_source["members"]["success"] >= 2
            assert view.by_source["flag"] == {}

    asyncio.run(scene())


def test_who_left_is_not_remembered(cluster: list[Member], files: Files) -> None:
    """Members and seeds that come and go over months leave nothing behind."""

    async def scene() -> None:
        async with following(static(cluster[0].name), files) as f:
            tell(cluster, 1, 2, 3)
            await eventually(lambda: f.names == names(cluster, 1, 2, 3))
            await asked_again(cluster)
            tell(cluster, 3)
            await eventually(lambda: f.names == names(cluster, 3))
            await asked_again(cluster)
            places = f.it._member_sync._questions._spoke_tls
            assert {name for name, _ in places} <= set(names(cluster, 0, 3))

    asyncio.run(scene())


def test_a_question_under_way_ends_before_a_stop(
    cluster: list[Member], files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop lets the member answer, takes what it said, and asks nobody any more."""
    monkeypatch.setattr("supervisor.discovery.member_sync.CLOSE_S", 60.0)

    async def scene() -> None:
        go_on = cluster[0].hold()
        async with following(static(cluster[0].name), files) as f:
            await eventually(lambda: cluster[0].asked)
            asyncio.get_running_loop().call_soon(go_on.set)
        assert f.names == names(cluster, 0, 1, 2)
        assert cluster[0].asked == 1

    asyncio.run(scene())


def test_a_pause_lets_a_question_end_and_asks_nobody(
    cluster: list[Member], files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upgrade cuts no question; if it comes to nothing, asking goes on, and a reload as well."""
    monkeypatch.setattr("supervisor.discovery.member_sync.CLOSE_S", 60.0)

    async def scene() -> None:
        go_on = cluster[0].hold()
        config = static(cluster[0].name)
        async with following(config, files) as f:
            await eventually(lambda: cluster[0].asked)
            asyncio.get_running_loop().call_soon(go_on.set)
            await f.it.pause()
            assert f.error == ""
            assert cluster[0].asked == 1
            reload = asyncio.create_task(f.it.reload(config))
            for _ in range(20):
                await asyncio.sleep(0)
            assert (sum(each.asked for each in cluster), reload.done()) == (1, False)
            f.it.resume()
            await reload
            await eventually(lambda: sum(each.asked for each in cluster) > 2)
            assert f.names == names(cluster, 0, 1, 2)

    asyncio.run(scene())


def test_off_asks_nobody(cluster: list[Member], files: Files) -> None:
    """Without the flag no member is asked anything, and the status says null."""

    async def scene() -> None:
        config = replace(static(cluster[0].name), member_sync_s=0.0)
        async with following(config, files) as f:
            await f.it.reload(config)
            assert f.it.view.member_sync is None
            assert f.names == [cluster[0].name]

    asyncio.run(scene())
    assert cluster[0].asked == 0


def test_a_minority_that_can_be_dialed_is_not_adopted(cluster: list[Member], files: Files) -> None:
    """A list whose addresses do not lead anywhere from here leaves endpoints as they were."""

    async def scene() -> None:
        dead = [f"http://127.0.0.1:{free_port()}" for _ in range(2)]
        cluster[0].urls = {"m0": [cluster[0].url], "m1": [dead[0]], "m2": [dead[1]]}
        async with following(static(cluster[0].name), files) as f:
            await eventually(lambda: "1 of 3 voting members can be dialed" in f.error)
            await asked_again(cluster)
            assert f.names == [cluster[0].name]
            assert len(f.log.said("member sync failed, endpoints stay as they were")) == 1
            cluster[0].urls = {"m0": [cluster[0].url], "m1": [cluster[1].url], "m2": [dead[1]]}
            await eventually(lambda: cluster[1].name in f.names)
            assert f.log.said("member sync works again")

    asyncio.run(scene())


def test_another_cluster_needs_a_reload(cluster: list[Member], files: Files) -> None:
    """A changed cluster id is said once and shown; endpoints follow it after a reload."""

    async def scene() -> None:
        async with following(static(cluster[0].name), files) as f:
            await eventually(lambda: len(f.found) == 3)
            tell(cluster, 0, 3)
            for member in cluster:
                member.cluster_id = 0xDEF
            await eventually(lambda: "member of cluster def, expected abc" in f.error)
            await asked_again(cluster)
            assert f.names == names(cluster, 0, 1, 2)
            assert len(f.log.said("member sync failed, endpoints stay as they were")) == 1
            await f.it.reload(f.config)
            await eventually(lambda: f.names == names(cluster, 0, 3))
            assert f.log.said("another cluster adopted, as a reload asks for it") == [
                {"cluster_id": "def", "before": "abc"}
            ]

    asyncio.run(scene())


def test_seeds_in_another_order_are_the_same_targets(cluster: list[Member], files: Files) -> None:
    """A reload keeps the list, although nobody answers just then."""

    async def scene() -> None:
        one, other = cluster[0].name, cluster[1].name
        async with following(static(one, other), files) as f:
            await eventually(lambda: f.names == names(cluster, 0, 1, 2))
            for member in cluster:
                member.refusal = b"{}"
            await f.it.reload(static(other, one))
            await eventually(lambda: failures(f) > 1)
            assert f.names == names(cluster, 0, 1, 2)

    asyncio.run(scene())


def test_a_reload_during_an_election_need_not_be_repeated(
    cluster: list[Member], files: Files
) -> None:
    """Its permission lasts until a member that knows a leader answers, and no longer."""

    async def scene() -> None:
        async with following(static(cluster[0].name), files) as f:
            await eventually(lambda: len(f.found) == 3)
            tell(cluster, 0, 3)
            for member in cluster:
                member.cluster_id, member.leader = 0xDEF, "0"
            await f.it.reload(f.config)
            await eventually(lambda: "knows no leader" in f.error)
            for member in cluster:
                member.refusal = b"{}"
            await eventually(lambda: "knows no leader" not in f.error)
            await eventually(lambda: failures(f) > 3)
            for member in cluster:
                member.refusal, member.leader = b"", "1"
            await eventually(lambda: f.names == names(cluster, 0, 3))
            for member in cluster:
                member.cluster_id = 0xABC
            await eventually(lambda: "member of cluster abc, expected def" in f.error)

    asyncio.run(scene())


def test_a_refusal_is_said_once_and_seeds_stay(cluster: list[Member], files: Files) -> None:
    """A member that tells its list to nobody without a password costs one line of the log."""

    async def scene() -> None:
        cluster[0].refusal = b'{"error":"etcdserver: user name is empty","code":3}'
        async with following(static(cluster[0].name), files) as f:
            await eventually(lambda: "etcdserver: user name is empty" in f.error)
            await eventually(lambda: f.it.view.by_source["members"]["failure"] > 2)
            assert f.names == [cluster[0].name]
            assert len(f.log.said("member sync failed, endpoints stay as they were")) == 1

    asyncio.run(scene())


def test_a_refusal_with_a_number_is_said_once(cluster: list[Member], files: Files) -> None:
    """What stands before etcd may name each question anew in what it says."""

    async def scene() -> None:
        cluster[0].refusal = b'{"error":"denied, request %d"}'
        async with following(static(cluster[0].name), files) as f:
            await eventually(lambda: failures(f) > 2)
            (line,) = f.log.said("member sync failed, endpoints stay as they were")
            assert line["error"].endswith("HTTP status 401 (denied, request 0)")
            assert "denied, request" in f.error
            assert "request 0" not in f.error

    asyncio.run(scene())


def test_a_refusal_is_said_once_whoever_is_asked(cluster: list[Member], files: Files) -> None:
    """Of many members a few are asked at a time, others each time: that is nothing new."""

    async def scene() -> None:
        for member in cluster:
            member.refusal = b'{"error":"etcdserver: user name is empty","code":3}'
        async with following(static(*names(cluster, 0, 1, 2, 3)), files) as f:
            f.draws = itertools.count()
            await eventually(lambda: failures(f) > 8)
            lines = f.log.said("member sync failed, endpoints stay as they were")
            assert len(lines) <= 2, lines
            assert all(any(each.name in line["error"] for line in lines) for each in cluster)
            for member in cluster:
                member.refusal = b""
            await eventually(lambda: f.log.said("member sync works again"))
            for member in cluster:
                member.refusal = b'{"error":"etcdserver: user name is empty","code":3}'
            await eventually(lambda: "user name is empty" in f.error)
            assert len(f.log.said("member sync failed, endpoints stay as they were")) > len(lines)

    asyncio.run(scene())


def test_another_cluster_is_said_once_whoever_tells(cluster: list[Member], files: Files) -> None:
    """Which member answers first is chance, for the next image does not know who did before."""

    async def scene() -> None:
        async with following(static(*names(cluster, 0, 1, 2)), files) as f:
            await eventually(lambda: f.it.adopted)
            view, adopted, found = f.it.view, f.it.adopted, f.found
        for member in cluster:
            member.cluster_id = 0xDEF
        after = Synced(f.config, files)
        after.draws = itertools.count()
        after.it.remember(view, adopted, found)
        await after.it.start(f.config.listen_addr)
        after.found = found
        try:
            await eventually(lambda: failures(after) > 8)
            assert len(after.log.said("member sync failed, endpoints stay as they were")) == 1
        finally:
            await after.it.close()

    asyncio.run(scene())


def test_the_last_list_outlives_failures(cluster: list[Member], files: Files) -> None:
    """While some member is active, a list that cannot be asked for stays in use."""

    async def scene() -> None:
        async with following(static(cluster[0].name), files) as f:
            await eventually(lambda: len(f.found) == 3)
            tell(cluster, 1, 2, 3)
            await eventually(lambda: f.names == names(cluster, 1, 2, 3))
            for member in cluster:
                member.refusal = b"{}"
            await eventually(lambda: f.error)
            assert f.names == names(cluster, 1, 2, 3)

    asyncio.run(scene())


def test_seeds_come_back_in_an_outage(cluster: list[Member], files: Files) -> None:
    """When nothing of the list is active and nobody confirms it, the seeds are used beside it."""

    async def scene() -> None:
        async with following(static(cluster[0].name), files) as f:
            tell(cluster, 1, 2, 3)
            await eventually(lambda: f.names == names(cluster, 1, 2, 3))
            for member in cluster:
                member.refusal = b"{}"
            f.active = set()
            f.it.set_any_active(False)
            await eventually(lambda: f.names == names(cluster, 0, 1, 2, 3))
            assert f.log.said("endpoints changed")[-1]["added"] == (cluster[0].name,)
            for member in cluster:
                member.refusal = b""
            await eventually(lambda: f.names == names(cluster, 1, 2, 3))
            assert cluster[0].asked

    asyncio.run(scene())


def test_a_seed_of_another_cluster_does_not_come_back_in_an_outage(
    cluster: list[Member], files: Files
) -> None:
    """Members that moved left their address to another cluster: clients never get there by
    themselves, be the last active member kept because too few are, and also after an upgrade."""

    async def scene() -> None:
        config = static(cluster[0].name, free_name := f"127.0.0.1:{free_port()}")
        async with following(config, files) as f:
            tell(cluster, 1, 2, 3)
            await eventually(lambda: f.names == names(cluster, 1, 2, 3))
            cluster[0].cluster_id, cluster[0].urls = 0xDEF, {"x": [cluster[0].url]}
            for member in cluster[1:]:
                member.refusal = b"{}"
            f.active = {cluster[1].name}
            f.it.set_any_active(False)
            await eventually(lambda: free_name in f.names)
            assert f.names == sorted([*names(cluster, 1, 2, 3), free_name])
            asked = cluster[0].asked
            cluster[0].refusal = b"{}"
            await eventually(lambda: failures(f) > asked + 3)
            assert cluster[0].name not in f.names, "silence takes nothing back"
            view, adopted, found = f.it.view, f.it.adopted, f.found
        after = Synced(config, files)
        after.it.remember(view, adopted, found)
        after.it.set_any_active(False)
        await after.it.start(config.listen_addr)
        try:
            await eventually(lambda: after.error)
            assert cluster[0].name not in after.names
            cluster[0].refusal = b""
            await after.it.reload(config)
            await eventually(lambda: after.names == names(cluster, 0))
        finally:
            await after.it.close()

    asyncio.run(scene())


def test_seeds_are_asked_before_they_come_back(cluster: list[Member], files: Files) -> None:
    """A question that began while a member was active was not for the seeds."""

    async def scene() -> None:
        async with following(static(cluster[0].name), files) as f:
            tell(cluster, 1, 2, 3)
            await eventually(lambda: f.names == names(cluster, 1, 2, 3))
            await asked_again(cluster)
            cluster[0].cluster_id, cluster[0].urls = 0xDEF, {"x": [cluster[0].url]}
            waiting, before = [each.hold() for each in cluster[1:]], asked(cluster)
            await eventually(lambda: asked(cluster) > before)
            f.active = set()
            f.it.set_any_active(False)
            for member, go_on in zip(cluster[1:], waiting, strict=True):
                member.refusal = b"{}"
                go_on.set()
            await eventually(lambda: "member of cluster def" in f.error)
            assert all(cluster[0].name not in each["added"] for each in changes(f))

    asyncio.run(scene())


def test_a_seed_that_says_late_that_it_is_of_another_cluster_leaves(
    cluster: list[Member], files: Files
) -> None:
    """It came back in the outage, and is the one that is active then."""

    async def scene() -> None:
        async with following(static(cluster[0].name), files) as f:
            tell(cluster, 1, 2, 3)
            await eventually(lambda: f.names == names(cluster, 1, 2, 3))
            cluster[0].cluster_id, cluster[0].urls = 0xDEF, {"x": [cluster[0].url]}
            for member in cluster:
                member.refusal = b"{}"
            f.active = set()
            f.it.set_any_active(False)
            await eventually(lambda: cluster[0].name in f.names)
            f.active = {cluster[0].name}
            f.it.set_any_active(True)
            cluster[0].refusal = b""
            await eventually(lambda: f.names == names(cluster, 1, 2, 3))

    asyncio.run(scene())


def asked(members: Sequence[Member]) -> int:
    """How often they were asked."""
    return sum(each.asked for each in members)


def changes(synced: Synced) -> list[dict[str, Any]]:
    """What changed of the endpoints, each time."""
    return synced.log.said("endpoints changed")


def test_an_old_list_is_not_believed(cluster: list[Member], files: Files) -> None:
    """A member that knows no leader may be cut off; its list changes nothing."""

    async def scene() -> None:
        async with following(static(cluster[0].name), files) as f:
            await eventually(lambda: len(f.found) == 3)
            tell(cluster, 0, 1)
            for member in cluster:
                member.leader = "0"
            await eventually(lambda: "knows no leader" in f.error)
            assert len(f.found) == 3

    asyncio.run(scene())


def test_a_member_of_another_cluster_hides_no_change(cluster: list[Member], files: Files) -> None:
    """One that was started anew as a cluster of its own is passed over: the others are asked."""

    async def scene() -> None:
        async with following(static(cluster[0].name), files) as f:
            await eventually(lambda: len(f.found) == 3)
            cluster[0].cluster_id, cluster[0].urls = 0xDEF, {"m0": [cluster[0].url]}
            for member in cluster[1:]:
                member.urls = {f"m{n}": [cluster[n].url] for n in (1, 2)}
            await eventually(lambda: f.names == names(cluster, 1, 2))
            assert f.error == ""
            assert f.log.said("member list passed over") == [
                {
                    "error": f"{cluster[0].name} is a member of cluster def, expected abc;"
                    " a reload adopts the other cluster"
                }
            ]
            await f.it.reload(f.config)
            await asked_again(cluster)
            assert f.names == names(cluster, 1, 2), "the others say that it is the same cluster"

    asyncio.run(scene())


@pytest.mark.parametrize("first", range(3))
def test_one_seed_of_another_cluster_decides_nothing(
    cluster: list[Member], files: Files, first: int
) -> None:
    """Whichever seed is asked first, the cluster is followed that most of them are members of."""

    async def scene() -> None:
        cluster[3].cluster_id, cluster[3].urls = 0xDEF, {"x": [cluster[3].url]}
        config = static(*names(cluster, 0, 1, 3))
        patient = dataclasses.replace(config, health_timeout_s=60)  # each answer counts
        synced = Synced(patient, files)
        synced.draws = itertools.repeat(first)
        await synced.it.start(synced.config.listen_addr)
        try:
            await eventually(lambda: synced.names == names(cluster, 0, 1, 2))
            assert synced.log.said("member list passed over") == [
                {
                    "error": f"{cluster[3].name} is a member of cluster def, expected abc,"
                    " which as many or more are members of"
                }
            ]
        finally:
            await synced.it.close()

    asyncio.run(scene())


def test_check_names_the_seed_of_another_cluster(cluster: list[Member], files: Files) -> None:
    """``check`` shows the list of most seeds, too, and says which one is not of that cluster."""
    cluster[3].cluster_id, cluster[3].urls = 0xDEF, {"x": [cluster[3].url]}
    config = static(*names(cluster, 0, 1, 3))

    async def scene() -> tuple[list[str], list[str]]:
        targets = Targets(config, (), Means(files=files))
        seeds = await targets.resolve(force=True)
        followed, _, problems = await follow_members(config, targets, seeds, ())
        return sorted(each.name for each in followed.endpoints), problems

    followed, problems = asyncio.run(scene())
    assert followed == names(cluster, 0, 1, 2)
    (problem,) = problems
    assert problem.startswith(f"member list passed over: {cluster[3].name} is a member of cluster ")


def test_seeds_of_different_clusters_stay_what_they_are(
    cluster: list[Member], files: Files
) -> None:
    """Where most are members of none, no list is adopted, and the reason says who is of which."""

    async def scene() -> None:
        cluster[3].cluster_id, cluster[3].urls = 0xDEF, {"x": [cluster[3].url]}
        async with following(static(*names(cluster, 0, 3)), files) as f:
            await eventually(lambda: "members of different clusters" in f.error)
            assert f"{cluster[0].name} of abc" in f.error
            assert f"{cluster[3].name} of def" in f.error
            await asked_again(cluster[:1])
            assert f.names == names(cluster, 0, 3)
            assert len(f.log.said("member sync failed, endpoints stay as they were")) == 1

    asyncio.run(scene())


def test_a_seed_that_is_away_keeps_its_cluster(cluster: list[Member], files: Files) -> None:
    """It has said which one it is of, so the other cluster is not followed meanwhile; a reload
    asks those alone that answer."""

    async def scene() -> None:
        cluster[3].cluster_id, cluster[3].urls = 0xDEF, {"x": [cluster[3].url]}
        async with following(static(*names(cluster, 0, 3)), files) as f:
            await eventually(lambda: "members of different clusters" in f.error)
            cluster[0].refusal = b"{}"
            await asked_again(cluster[3:])
            assert f.names == names(cluster, 0, 3)
            assert len(f.log.said("member sync failed, endpoints stay as they were")) == 1
            await f.it.reload(f.config)
            await eventually(lambda: f.names == names(cluster, 3))

    asyncio.run(scene())


def test_a_cluster_of_few_seeds_gives_way_to_one_of_more(
    cluster: list[Member], files: Files
) -> None:
    """Those of more were away at the start: when they are back, all is as if they had not been."""

    async def scene() -> None:
        cluster[3].cluster_id, cluster[3].urls = 0xDEF, {"x": [cluster[3].url]}
        for member in cluster[:2]:
            member.refusal = b"{}"
        async with following(static(*names(cluster, 0, 1, 3)), files) as f:
            await eventually(lambda: f.names == names(cluster, 3))
            said = "member list not settled, another cluster may be adopted"
            await eventually(lambda: f.log.said(said))
            assert f.log.said(said)[0]["reason"].startswith(
                "1 of 3 seeds are known to be members of cluster def"
            )
            cluster[0].refusal = b""
            await eventually(lambda: f.log.said("member list passed over"))
            await asked_again(cluster[3:])
            assert f.names == names(cluster, 3), "of two that answer, one is of each"
            cluster[1].refusal = b""
            await eventually(lambda: f.names == names(cluster, 0, 1, 2))
            assert f.log.said("another cluster adopted, as more seeds are members of it") == [
                {"cluster_id": "abc", "before": "def"}
            ]
            tell(cluster, 0, 1, 3)
            for member in cluster:
                member.cluster_id = 0xDEF
            await eventually(lambda: "a reload adopts the other cluster" in f.error)
            assert f.names == names(cluster, 0, 1, 2), "it is settled"

    asyncio.run(scene())


def test_seeds_that_dns_lacks_may_be_of_another_cluster(
    cluster: list[Member], files: Files
) -> None:
    """Names that have no address yet count as seeds: their cluster may be that of most."""

    def come() -> None:
        Path(files.hosts).write_text("127.0.0.1 infra0.test infra1.test\n")

    ports = [each.name.rpartition(":")[2] for each in cluster]
    away = [f"infra{n}.test:{ports[n]}" for n in (0, 1)]
    config = replace(
        static(*away, cluster[3].name), nameserver=(HostPort("127.0.0.1", free_port()),)
    )
    cluster[3].cluster_id, cluster[3].urls = 0xDEF, {"x": [cluster[3].url]}

    async def scene() -> None:
        async with following(config, files) as f:
            await eventually(lambda: f.it.adopted)
            await asked_again(cluster[3:])
            come()
            f.it.refresh()
            await eventually(lambda: f.names == sorted([*away, cluster[2].name]))

    asyncio.run(scene())


def test_the_list_of_a_former_master_is_settled(cluster: list[Member], files: Files) -> None:
    """After an upgrade no other cluster is adopted, however many seeds are members of it."""

    async def scene() -> None:
        cluster[3].cluster_id, cluster[3].urls = 0xDEF, {"x": [cluster[3].url]}
        config = static(*names(cluster, 0, 1, 3))
        for member in cluster[:2]:
            member.refusal = b"{}"
        async with following(config, files) as f:
            await eventually(lambda: f.names == names(cluster, 3))
            view, adopted, found = f.it.view, f.it.adopted, f.found
        for member in cluster[:2]:
            member.refusal = b""
        after = Synced(config, files)
        after.it.remember(view, adopted, found)
        await after.it.start(config.listen_addr)
        try:
            await asked_again(cluster[3:])
            assert after.names == names(cluster, 3)
            after.active = set()
            after.it.set_any_active(False)
            await eventually(lambda: after.log.said("member list passed over"))
            assert after.names == names(cluster, 3)
        finally:
            await after.it.close()

    asyncio.run(scene())


def test_check_says_that_seeds_are_away(cluster: list[Member], files: Files) -> None:
    """``check`` shows the list of those that answer, and that another one may be adopted."""
    cluster[0].urls = {"m0": [cluster[0].url]}
    cluster[3].refusal = b"{}"
    config = static(*names(cluster, 0, 3))

    async def scene() -> tuple[list[str], list[str]]:
        targets = Targets(config, (), Means(files=files))
        seeds = await targets.resolve(force=True)
        followed, _, problems = await follow_members(config, targets, seeds, ())
        return [each.name for each in followed.endpoints], problems

    followed, problems = asyncio.run(scene())
    assert followed == [cluster[0].name]
    (problem,) = problems
    assert problem == (
        "member list not settled, another cluster may be adopted: 1 of 2 seeds are known to be"
        f" members of cluster abc, expected more than half; not heard yet: {cluster[3].name}"
    )


def test_a_member_that_is_cut_off_hides_no_change(cluster: list[Member], files: Files) -> None:
    """It knows no leader, and tells the list that it had (etcd 3.4): the others are asked."""

    async def scene() -> None:
        async with following(static(cluster[0].name), files) as f:
            await eventually(lambda: len(f.found) == 3)
            cluster[0].leader = "0"
            for member in cluster[1:]:
                member.urls = {f"m{n}": [cluster[n].url] for n in (1, 2, 3)}
            await eventually(lambda: f.names == names(cluster, 1, 2, 3))

    asyncio.run(scene())


def test_an_answer_about_the_targets_of_before_is_not_used(
    cluster: list[Member], files: Files
) -> None:
    """A member of the old cluster answers after a reload to another one: that is too late."""

    async def scene() -> None:
        go_on = cluster[0].hold()
        cluster[3].urls, cluster[3].cluster_id = {"m3": [cluster[3].url]}, 0xDEF
        async with following(static(cluster[0].name), files) as f:
            await eventually(lambda: cluster[0].asked)
            await f.it.reload(static(cluster[3].name))
            go_on.set()
            await eventually(lambda: f.it.adopted)
            assert f.it.adopted is not None
            assert f.it.adopted.cluster_id == 0xDEF
            assert f.names == [cluster[3].name]

    asyncio.run(scene())


def test_the_gateway_itself_is_left_out(cluster: list[Member], files: Files) -> None:
    """A member that gives the gateway as its own client URL is not dialed, and that is said."""

    async def scene() -> None:
        port = free_port()
        own = HostPort("127.0.0.1", port)
        tell(cluster, 0, 1)
        for member in cluster:
            member.urls = {**member.urls, "m2": [f"http://127.0.0.1:{port}"]}
        config = replace(static(cluster[0].name), listen_addr=(own,))
        async with following(config, files) as f:
            await eventually(lambda: f.names == names(cluster, 0, 1))
            assert f.it.view.refused == {str(own): f"is the gateway's own listen address {own}"}
            await f.it.reload(config)

    asyncio.run(scene())


def test_names_of_the_list_are_looked_up(cluster: list[Member], files: Files) -> None:
    """Members that are known by name are found where the name leads; one that is none is said."""

    Path(files.hosts).write_text("127.0.0.1 infra1.test\n")

    async def scene() -> None:
        port = cluster[1].name.rpartition(":")[2]
        cluster[0].urls = {
            "m0": [cluster[0].url],
            "m1": [f"http://infra1.test:{port}"],
            "m2": ["http://absent.invalid:1"],
        }
        config = replace(static(cluster[0].name), nameserver=(HostPort("127.0.0.1", free_port()),))
        async with following(config, files) as f:
            await eventually(
                lambda: f.names == sorted([cluster[0].name, f"infra1.test:{port}"]), 30
            )

    asyncio.run(scene())


def test_while_nothing_is_active_the_names_of_the_list_are_asked_again_and_again(
    cluster: list[Member], files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Members that moved under their names are found long before the TTL, whatever the seeds."""
    monkeypatch.setattr("supervisor.core.discovery.schedule.URGENT_S", 0.1)
    port = cluster[1].name.rpartition(":")[2]
    for member in cluster:
        member.urls = {"m0": [cluster[0].url], "m1": [f"http://infra1.test:{port}"]}

    async def scene(ns: NameServer) -> None:
        config = replace(static(cluster[0].name), nameserver=(ns.address,))
        async with following(config, files) as f:
            await eventually(lambda: f.names == sorted([cluster[0].name, f"infra1.test:{port}"]))
            asked = ns.asked("infra1.test", "A")
            f.active = set()
            f.it.set_any_active(False)
            await eventually(lambda: ns.asked("infra1.test", "A") >= asked + 3)

    with NameServer() as ns:
        ns.negative_ttl = 3600
        ns.set("infra1.test", "A", "127.0.0.1", ttl=3600)
        asyncio.run(scene(ns))


def test_other_targets_forget_the_list(cluster: list[Member], files: Files) -> None:
    """A reload with other targets follows them, whatever the old cluster said; so does off."""

    async def scene() -> None:
        async with following(static(cluster[0].name), files) as f:
            await eventually(lambda: len(f.found) == 3)
            cluster[3].urls, cluster[3].cluster_id = {"m3": [cluster[3].url]}, 0xDEF
            await f.it.reload(static(cluster[3].name))
            assert f.names == [cluster[3].name]
            await eventually(lambda: f.it.adopted is not None and f.it.adopted.cluster_id == 0xDEF)
            await f.it.reload(replace(static(cluster[0].name), member_sync_s=0.0))
            assert f.names == [cluster[0].name]
            assert f.it.view.member_sync is None

    asyncio.run(scene())


def test_the_next_image_goes_on_with_the_list(cluster: list[Member], files: Files) -> None:
    """What one image adopted is used by the next before anybody is asked, seeds dead or not."""

    async def scene() -> None:
        tell(cluster, 1, 2, 3)
        async with following(static(cluster[0].name), files) as before:
            await eventually(lambda: before.names == names(cluster, 1, 2, 3))
            adopted, view = before.it.adopted, before.it.view
        for member in cluster:
            member.refusal = b"{}"
        after = Synced(static(cluster[0].name), files)
        after.it.remember(view, adopted)
        await after.it.start(after.config.listen_addr)
        try:
            assert after.names == names(cluster, 1, 2, 3)
            assert not after.log.said("endpoints changed")
            await eventually(lambda: after.error)
            assert after.it.view.by_source["members"]["success"] >= 1
            assert isinstance(after.it.adopted, AdoptedList)
        finally:
            await after.it.close()

    asyncio.run(scene())


def test_the_next_image_knows_the_seed_of_a_client_url_that_dns_fails_for(
    cluster: list[Member], files: Files
) -> None:
    """The seed has an address, the client URL a name that has it, too: it goes on being used."""
    Path(files.hosts).write_text("127.0.0.1 infra1.test\n")
    port = cluster[1].name.rpartition(":")[2]
    for member in cluster:
        member.urls["m1"] = [f"http://infra1.test:{port}"]
    config = replace(
        static(*names(cluster, 0, 1)), nameserver=(HostPort("127.0.0.1", free_port()),)
    )

    async def scene() -> None:
        async with following(config, files) as before:
            await eventually(lambda: before.names == names(cluster, 0, 1, 2))
            view, adopted, found = before.it.view, before.it.adopted, before.found
        os.truncate(files.hosts, 0)
        after = Synced(config, files)
        after.it.remember(view, adopted, found)
        await after.it.start(config.listen_addr)
        try:
            assert not after.log.said("endpoints changed")
            assert after.names == names(cluster, 0, 1, 2)
            assert "infra1.test" in (after.it.view.last_error or "")
            assert after.it.adopted
            assert after.it.adopted.addresses == {"infra1.test": ("127.0.0.1",)}
        finally:
            await after.it.close()

    asyncio.run(scene())
