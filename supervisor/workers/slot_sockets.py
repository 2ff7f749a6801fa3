"""The sockets of the slots: listeners and inboxes, which outlive the workers that use them."""

from __future__ import annotations

import contextlib
import os
import socket
from collections import deque
from collections.abc import Iterator

from gateway.core.records import dataclass
from gateway.descriptors import (
    DescriptorsLostError,
    close_all,
    has_number_for_one,
    receive,
    send,
)
from gateway.tcp import arm_reset
from supervisor.core.workers.descriptor_names import Kind, compose_name
from supervisor.workers.descriptor_store import NO_DESCRIPTOR_STORE, DescriptorStore
from supervisor.workers.inherited import InheritedSlot
from supervisor.workers.shared_listeners import SharedListeners


@dataclass(slots=True)
class SlotSockets:
    """What the master holds for a slot throughout; each worker of the slot inherits it."""

    inbox_r: socket.socket
    inbox_w: socket.socket
    listeners: tuple[socket.socket, ...] = ()


class Sockets:
    """Owns the sockets of all slots, and those that the slots share, until :meth:`close`.

    ``store`` keeps the listeners, and with ``handover`` the inboxes too.
    """

    def __init__(self, store: DescriptorStore, shared: SharedListeners, *, handover: bool) -> None:
        self.shared = shared
        self._descriptor_store = store
        self._inbox_descriptor_store = store if handover else NO_DESCRIPTOR_STORE
        self._slots: dict[int, SlotSockets] = {}
        self._stranded: deque[tuple[int, bytes, int]] = deque()
        """Accepted clients that no inbox has room for: the slot to whose inbox each belongs, what
        came with it, and its descriptor."""

    def __getitem__(self, index: int) -> SlotSockets:
        return self._slots[index]

    def __contains__(self, index: int) -> bool:
        return index in self._slots

    def open(self, index: int) -> None:
        """Make the slot's inbox; its listeners come from its first worker."""
        self._slots[index] = SlotSockets(*self._make_inbox(index))

    def inherit(self, index: int, left: InheritedSlot, *, by_upgrade: bool = False) -> None:
        """Take over one slot's inherited sockets.

        ``by_upgrade``: the image before may have been told not to keep the inboxes.
        """
        if left.inbox_r is not None and left.inbox_w is not None:
            inbox_r = socket.socket(fileno=left.inbox_r)
            inbox_w = socket.socket(fileno=left.inbox_w)
            if by_upgrade:
                self._keep_inbox(index, inbox_r, inbox_w)
        else:
            close_all([fd for fd in (left.inbox_r, left.inbox_w) if fd is not None])
            inbox_r, inbox_w = self._make_inbox(index)
        listeners = tuple(socket.socket(fileno=fd) for _, fd in sorted(left.listeners.items()))
        self._slots[index] = SlotSockets(inbox_r, inbox_w, listeners)

    def _make_inbox(self, index: int) -> tuple[socket.socket, socket.socket]:
        inbox_r, inbox_w = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._keep_inbox(index, inbox_r, inbox_w)
        return inbox_r, inbox_w

    def _keep_inbox(self, index: int, inbox_r: socket.socket, inbox_w: socket.socket) -> None:
        self._inbox_descriptor_store.keep(compose_name(Kind.INBOX_R, index), inbox_r.fileno())
        self._inbox_descriptor_store.keep(compose_name(Kind.INBOX_W, index), inbox_w.fileno())

    def bind(self, index: int, fds: list[int]) -> None:
        """Own the listeners that the slot's first worker made."""
        self._slots[index].listeners = tuple(socket.socket(fileno=fd) for fd in fds)
        for number, fd in enumerate(fds):
            self._descriptor_store.keep(compose_name(Kind.LISTENER, index, number), fd)

    def peers_of(self, index: int) -> dict[int, socket.socket]:
        """The sending ends of the other slots' inboxes."""
        return {other: slot.inbox_w for other, slot in self._slots.items() if other != index}

    def listener_inodes(self) -> set[int]:
        """The inodes of all listening sockets of this gateway."""
        return {os.fstat(sock.fileno()).st_ino for _, _, sock in self._listeners()}

    def rescue(self, index: int, to: int) -> int:
        """Move the clients in the inbox of a slot without a live worker to its adopter's.

        Where that is full they stay, for the slot's next worker or for the next master. Returns how
        many were lost because this process had no descriptor left for them.
        """
        slot, lost = self._slots[index], 0
        with contextlib.suppress(BlockingIOError):
            while has_number_for_one(slot.inbox_r):
                try:
                    data, fds = receive(slot.inbox_r, 128, 1)
                except DescriptorsLostError:
                    lost += 1
                    continue
                if not data and not fds:
                    break
                if fds and not self._put(to, data, fds[0]):
                    self._stranded.append((index, data, fds[0]))
                    self.put_back()
                    break
        return lost

    def put_back(self) -> None:
        """Put clients that nobody had room for into the inbox that they were in."""
        while self._stranded and self._put(*self._stranded[0]):
            self._stranded.popleft()

    def _put(self, index: int, data: bytes, fd: int) -> bool:
        """Put a client into a slot's inbox; False: there is no room, and it stays here."""
        try:
            send(self._slots[index].inbox_w, data, [fd])
        except OSError:
            return False
        os.close(fd)
        return True

    def turn_away(self) -> int:
        """At the end of the gateway: who waits in an inbox gets a reset, and not an end of stream.

        Returns how many those were.
        """
        count = len(self._stranded)
        _reset_all([fd for _, _, fd in self._stranded])
        self._stranded.clear()
        for slot in self._slots.values():
            with contextlib.suppress(OSError, DescriptorsLostError):
                while has_number_for_one(slot.inbox_r):
                    data, fds = receive(slot.inbox_r, 128, 1)
                    if not data and not fds:
                        break
                    _reset_all(fds)
                    count += len(fds)
        return count

    def shut(self) -> None:
        """Shut the listeners down, so that nobody can connect, whoever else holds a duplicate."""
        for index, number, sock in self._listeners():
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RD)
            sock.close()
            self._descriptor_store.remove(compose_name(Kind.LISTENER, index, number))
        for slot in self._slots.values():
            slot.listeners = ()
        self.shared.shut()

    def named_descriptors(self) -> dict[str, int]:
        """All descriptors by name; they stay ours."""
        named = {
            compose_name(Kind.LISTENER, index, number): sock.fileno()
            for index, number, sock in self._listeners()
        }
        for index, slot in self._slots.items():
            named[compose_name(Kind.INBOX_R, index)] = slot.inbox_r.fileno()
            named[compose_name(Kind.INBOX_W, index)] = slot.inbox_w.fileno()
        return named | self.shared.named_descriptors()

    def close(self) -> None:
        for slot in self._slots.values():
            for sock in (*slot.listeners, slot.inbox_r, slot.inbox_w):
                sock.close()
        self._slots.clear()
        self.shared.close()
        close_all([fd for _, _, fd in self._stranded])
        self._stranded.clear()

    def _listeners(self) -> Iterator[tuple[int, int, socket.socket]]:
        """Every listener with its slot and its number there."""
        for index, slot in self._slots.items():
            for number, sock in enumerate(slot.listeners):
                yield index, number, sock


def _reset_all(fds: list[int]) -> None:
    for fd in fds:
        arm_reset(fd)
    close_all(fds)
