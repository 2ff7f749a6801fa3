"""Which endpoints ``start`` would use with ``--member-sync``, for the command ``check``."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

from gateway.core.address import Address
from supervisor.core.admin.views import MemberSyncView
from supervisor.core.config import Config
from supervisor.core.discovery.explanation import Branch
from supervisor.core.discovery.joining import endpoint_for
from supervisor.core.discovery.resolution import Resolution
from supervisor.discovery.member_sync import MemberSync, Surroundings
from supervisor.discovery.targets import Targets
from supervisor.system.log import make_log
from supervisor.system.tls_contexts import TlsContexts


async def follow_members(
    config: Config, targets: Targets, seeds: Resolution, listen: Sequence[Address]
) -> tuple[Resolution, tuple[Branch, ...], list[str]]:
    """The resolution that follows from the member list, how it came to that, and the problems.

    Without ``--member-sync``, and without anybody to ask, the seeds are the endpoints.
    """
    if not config.member_sync_s or not seeds.endpoints:
        return seeds, (), []
    resolution = seeds
    member_sync = MemberSync(
        config,
        make_log("error", "json"),  # what it has to say is in its view
        Surroundings(
            resolution=lambda: resolution,
            active=lambda: [each.name for each in seeds.endpoints],
            listen=lambda: listen,
            look_up=targets.look_up,
            on_change=lambda: None,
        ),
        draw=random.randrange,
        wall=time.time,
        contexts=TlsContexts(),
    )
    passed_over = await member_sync.ask_once()
    resolution = await targets.resolve(force=False, adopted=member_sync.adopted)
    view = member_sync.view
    if view is None:
        return resolution, (), []
    problems = [f"member list passed over: {reason}" for reason in passed_over]
    if doubt := member_sync.find_doubt():
        problems.append(f"member list not settled, another cluster may be adopted: {doubt}")
    if view.last_error:
        problems.append(f"member list not adopted: {view.last_error}")
    return resolution, (_explain(view, resolution),), problems


def _explain(view: MemberSyncView, resolution: Resolution) -> Branch:
    children = []
    for name, url in view.members:
        endpoint = endpoint_for(url, resolution)
        used = f"endpoint {endpoint}" if endpoint else "not used"
        text = used if endpoint == url else f"client URL {url}, {used}"
        facts = {"member": name, "client_url": url, "endpoint": endpoint or None}
        children.append(Branch(f"member {name}: {text}", facts))
    children += [
        Branch(f"left out: {name} {reason}", {"member": name, "left_out": reason})
        for name, reason in view.left_out.items()
    ]
    if view.last_error:
        text = f"not adopted: {view.last_error}"
        children.append(Branch(text, {"not_adopted": view.last_error}))
    text, facts = "member list", {"cluster_id": view.cluster_id, "asked": view.last_asked}
    if view.cluster_id:
        text += f" of cluster {view.cluster_id}, told by {view.last_asked}"
    return Branch(text, facts, tuple(children))
