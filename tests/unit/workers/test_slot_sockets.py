"""The sockets of the slots: clients in an inbox outlive whatever happens to workers."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

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


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    sockets = Sockets(NO_DESCRIPTOR_STORE, SharedListeners(), handover=False)
    sockets.open(0)
    sockets.open(1)
    yield sockets
    sockets.close()


def send_client(sockets: Sockets, index: int) -> socket.socket:
    """Put an accepted client into the inbox of a slot; the client's end."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
        with accepted:
            send(sockets[index].inbox_w, b"+", [accepted.fileno()])
    return client


def fill_inbox(sockets: Sockets, index: int) -> None:
    with contextlib.suppress(BlockingIOError):
        while True:
            send(sockets[index].inbox_w, b"!")


def test_clients_for_whom_the_adopter_has_no_room_stay_in_their_inbox(sockets: Sockets) -> None:
    """The slot's next worker reads it, and so does that of the next master."""
    fill_inbox(sockets, 1)
    with send_client(sockets, 0), send_client(sockets, 0):
        assert sockets.rescue(0, to=1) == 0
        for _ in range(2):
            data, [fd] = receive(sockets[0].inbox_r, 9)
            assert data == b"+"
            socket.socket(fileno=fd).close()


def test_a_client_for_whom_no_inbox_has_room_goes_back_when_there_is_some(
    sockets: Sockets,
) -> None:
    """It does not depend on another adoption."""

    class Racing:
        """The sending end of an inbox that others fill the moment that something was read."""

        def __init__(self) -> None:
            self.own = sockets[0].inbox_w

        def sendmsg(self, *_: object) -> int:
            raise BlockingIOError

        def close(self) -> None:
            self.own.close()

    fill_inbox(sockets, 1)
    with send_client(sockets, 0):
        racing = Racing()
        sockets[0].inbox_w = racing  # type: ignore[assignment]
        assert sockets.rescue(0, to=1) == 0
        sockets[0].inbox_w = racing.own
        sockets.put_back()
        _, [fd] = receive(sockets[0].inbox_r, 9)
        socket.socket(fileno=fd).close()


def test_who_waits_in_an_inbox_at_the_end_is_reset(sockets: Sockets) -> None:
    """An end of stream would look like an answer."""
    with send_client(sockets, 0) as client:
        assert sockets.turn_away() == 1
        with pytest.raises(ConnectionResetError):
            client.recv(9)
