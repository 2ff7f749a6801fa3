"""The listeners of a former master, and the addresses that are configured now; on real sockets."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from gateway.core.address import HostPort
from gateway.descriptors import close_all
from gateway.ingress.listener import open_listener
from gateway.ingress.open_files import count_open_files
from supervisor.workers.inherited import InheritedDescriptors
from supervisor.workers.inherited_listeners import fit_listeners
from tests.support import free_port

EVERYWHERE, EVERYWHERE_IN_6 = "", "::"


@contextmanager
def listening(*addresses: HostPort) -> Iterator[list[int]]:
    """Listeners of a former master."""
    with ExitStack() as stack:
        socks = [stack.enter_context(open_listener(each, exclusive=True)) for each in addresses]
        yield [sock.fileno() for sock in socks]


@contextmanager
def one_descriptor_left() -> Iterator[None]:
    """The process may make one more descriptor."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def fitted(former: list[int], *wanted: HostPort) -> dict[int, int]:
    return fit_listeners(dict(enumerate(former)), wanted, opened=set())


def test_other_ports_are_left_to_the_workers() -> None:
    """The first worker finds out whether another program listens there, as at every start."""
    with listening(HostPort("127.0.0.1", free_port())) as former:
        assert fitted(former, HostPort("127.0.0.1", free_port())) == {}


def test_an_address_that_overlaps_is_bound_beside() -> None:
    """Workers of before listen on the one, and clients of both have to be taken."""
    one = HostPort("127.0.0.1", free_port())
    every = HostPort("0.0.0.0", one.port)
    with listening(one) as former:
        found = fitted(former, every)
        try:
            assert set(found) == {0}
            with socket.socket(fileno=os.dup(found[0])) as sock:
                assert sock.getsockname() == ("0.0.0.0", one.port)
        finally:
            close_all(list(found.values()))
        found = fitted(former, every, one)
        assert found.pop(1) == former[0]
        close_all(list(found.values()))


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="needs IPv6")
def test_all_addresses_are_not_all_of_ipv6() -> None:
    """Both are bound to ``::``, and who has the one has not the other."""
    port = free_port()
    for had, wanted in ((EVERYWHERE, EVERYWHERE_IN_6), (EVERYWHERE_IN_6, EVERYWHERE)):
        with listening(HostPort(had, port)) as former:
            assert fitted(former, HostPort(had, port)) == {0: former[0]}
            found = fitted(former, HostPort(wanted, port))
            assert set(found) == {0}
            assert found[0] != former[0]
            close_all(list(found.values()))


def test_of_listeners_that_not_all_slots_can_have_none_is_left() -> None:
    """It may be tried again, and what was opened for the first slot is nobody's then."""
    one = HostPort("127.0.0.1", free_port())
    every = HostPort("0.0.0.0", one.port)
    with listening(one) as [first], socket.socket(fileno=os.dup(first)) as second:
        inherited = InheritedDescriptors.from_names(
            [("listener.0.0", first), ("listener.1.0", second.fileno())]
        )
        before = count_open_files()[1]
        with one_descriptor_left(), pytest.raises(OSError, match="Too many open files"):
            inherited.fit_listeners((every, one))
        assert [slot.listeners for slot in inherited.slots.values()] == [
            {0: first},
            {0: second.fileno()},
        ]
        assert count_open_files()[1] == before


def test_what_is_no_socket_costs_no_other_one() -> None:
    """They are the caller's, who may try again with them."""
    with listening(HostPort("127.0.0.1", free_port())) as [first]:
        pipe_r, pipe_w = os.pipe()
        try:
            with pytest.raises(OSError, match="Socket operation on non-socket"):
                fitted([first, pipe_r], HostPort("127.0.0.1", free_port()))
            os.fstat(first)
        finally:
            close_all([pipe_r, pipe_w])
