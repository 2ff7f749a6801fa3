"""Which listen addresses an image has that takes over from another one."""

from __future__ import annotations

import asyncio

import pytest

from gateway.core.address import Address, HostPort
from supervisor.core.config import Config, build
from supervisor.core.handover_state import HandoverState
from supervisor.discovery.targets import BadTargetError
from supervisor.handover.inherited_listen import find_listen, keep_listen


def find(listen: tuple[Address, ...], state: HandoverState) -> tuple[Address, ...]:
    return asyncio.run(find_listen(Config(listen_addr=listen), state))


def test_what_is_bound_needs_no_dns() -> None:
    """A name keeps the addresses that it had, even one that does not exist any more."""
    state = HandoverState(listen_given=("gone.invalid:1",), listen=("127.0.0.1:1", "[::1]:1"))
    assert find((HostPort("gone.invalid", 1),), state) == (
        HostPort("127.0.0.1", 1),
        HostPort("::1", 1),
    )


def test_another_address_is_taken_if_it_is_another_one_altogether() -> None:
    """The old workers hold theirs until they have drained."""
    state = HandoverState(listen_given=("127.0.0.1:1",), listen=("127.0.0.1:1",))
    assert find((HostPort("127.0.0.1", 2),), state) == (HostPort("127.0.0.1", 2),)
    with pytest.raises(BadTargetError, match=r"127\.0\.0\.1:1 is in use by the workers before"):
        find((HostPort("127.0.0.1", 1), HostPort("127.0.0.1", 2)), state)


def test_a_first_image_has_nothing_to_go_by() -> None:
    """An empty state resolves as a start does; the same addresses in other words are the same."""
    assert find((HostPort("127.0.0.1", 1),), HandoverState()) == (HostPort("127.0.0.1", 1),)
    state = HandoverState(listen_given=("localhost:1",), listen=("127.0.0.1:1",))
    assert find((HostPort("127.0.0.1", 1),), state) == (HostPort("127.0.0.1", 1),)


def test_the_addresses_of_before_can_be_kept() -> None:
    """Names too, which go on with what is bound; the configuration is shown as it is in use."""
    config = build({"listen-addr": ["127.0.0.1:1,127.0.0.1:2"]}, {}, {})
    state = HandoverState(listen_given=("gw.invalid:1",), listen=("127.0.0.1:1",))
    kept = keep_listen(config, state)
    assert find(kept.listen_addr, state) == (HostPort("127.0.0.1", 1),)
    shown = {each.flag: each.value for each in kept.effective}
    assert shown["listen-addr"] == "gw.invalid:1"
    assert shown["workers"] == "auto"
