"""The sockets of the slots: clients in an inbox outlive whatever happens to workers."""

from __future__ import annotations

import socket

from gateway.descriptors import receive, send
from supervisor.workers.descriptor_store import NO_DESCRIPTOR_STORE
from supervisor.workers.shared_listeners import SharedListeners
from supervisor.workers.slot_sockets import Sockets
from tests.support import no_descriptors_left


def test_clients_are_moved_when_there_is_a_number_for_them() -> None:
    """Until then they wait where they are; none is lost."""
    sockets = Sockets(NO_DESCRIPTOR_STORE, SharedListeners(), handover=False)
    sockets.open(0)
    sockets.open(1)
    ours, theirs = socket.socketpair()
    with theirs:
        with ours:
            send(sockets[0].inbox_w, b"+", [ours.fileno()])
        with no_descriptors_left():
            assert sockets.rescue(0, to=1) == 0
        assert sockets.rescue(0, to=1) == 0
        data, [fd] = receive(sockets[1].inbox_r, 9)
        assert data == b"+"
        with socket.socket(fileno=fd) as taken:
            taken.send(b"hello")
            assert theirs.recv(9) == b"hello"
    sockets.close()
