"""What the worker pool inherits: descriptors by name, sorted by slot and worker."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from dataclasses import field

from gateway.core.address import Address, HostPort, tcp_only
from gateway.core.records import dataclass
from gateway.descriptors import close_all
from supervisor.core.workers.descriptor_names import (
    Kind,
    compose_name,
    read_name,
    worker_names,
)
from supervisor.core.workers.events import FormerSlot
from supervisor.core.workers.worker_id import WorkerId
from supervisor.workers.fork import Child
from supervisor.workers.inherited_listeners import find_bound, fit_listeners
from supervisor.workers.shared_listeners import InheritedShared, is_listening_unix


@dataclass(slots=True)
class InheritedSlot:
    """One slot's descriptors; workers by generation, of which ``draining`` were told to leave."""

    listeners: dict[int, int] = field(default_factory=dict)
    inbox_r: int | None = None
    inbox_w: int | None = None
    workers: dict[int, dict[Kind, int]] = field(default_factory=dict)
    draining: set[int] = field(default_factory=set)
    ends_at: dict[int, float] = field(default_factory=dict)
    """By generation: when the sessions of a worker that drains are cut, where that is known."""
    gen: int = 0
    refitted: bool = False
    """Whether it has a listener that was opened here: its workers do not accept from that one."""

    @property
    def whole(self) -> list[int]:
        """The generations of which every descriptor is there: control socket, pipe and pidfd."""
        return [gen for gen, parts in self.workers.items() if len(parts) == 3]

    @property
    def serves(self) -> bool:
        """Whether it has a worker that accepts."""
        return any(gen not in self.draining for gen in self.whole)

    def has_listeners(self, listen: tuple[Address, ...]) -> bool:
        """Whether it has what it needs: none of its own where all addresses are UNIX sockets'."""
        return bool(self.listeners) or not tcp_only(listen)

    def guess_draining(self, leaving: Container[int]) -> None:
        """Where nobody said which of them drain; ``leaving``: generations that surely do.

        The newest is the one that serves: an older one was told to drain, or was about to be when
        the master before us ended. But its successor may have ended by now.
        """
        self.draining = set(self.workers)
        if self.gen not in leaving:
            self.draining.discard(self.gen)


@dataclass(slots=True)
class InheritedDescriptors:
    """Owns every descriptor in it until the pool takes it over."""

    scoreboard: int | None = None
    slots: dict[int, InheritedSlot] = field(default_factory=dict)
    shared: list[InheritedShared] = field(default_factory=list)
    told_to_drain: bool = False
    """Whether an image before us told those in ``InheritedSlot.draining`` to drain, so that they
    are not given all of the time anew."""
    unready: list[int] = field(default_factory=list)
    """Pidfds of workers that were not ready; nothing else is left of them."""
    unknown: dict[str, int] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    """Names under which there is nothing any more; the store should forget them first."""
    renamed: dict[str, int] = field(default_factory=dict)
    """Listeners that the store should keep, new ones and those that had another name."""
    pids: dict[int, int] = field(default_factory=dict)
    """The process of each pidfd, as :meth:`identify` found it."""

    @classmethod
    def from_names(
        cls,
        named: Iterable[tuple[str, int]],
        *,
        gens: Mapping[int, int] | None = None,
        draining: Collection[WorkerId] | None = None,
        leaving: Collection[WorkerId] = (),
        drains_until: Mapping[WorkerId, float] | None = None,
    ) -> InheritedDescriptors:
        """Sort descriptors by their names, see ``descriptor_names``.

        ``gens`` (the highest generation of each slot) and ``draining`` are known where a former
        image says more than names can. ``leaving``: some of those that drain, from a record.
        ``drains_until``: when their sessions are cut, where that is known.
        """
        inherited = cls(told_to_drain=draining is not None)
        taken: set[str] = set()
        for name, fd in named:
            if name in taken:  # the service manager names the newest first
                os.close(fd)
            elif inherited._take(name, fd):
                taken.add(name)
            else:
                # Sockets of one socket unit all have the unit's name.
                unique = name if name not in inherited.unknown else f"{name}+{fd}"
                inherited.unknown[unique] = fd
        for index, slot in inherited.slots.items():
            slot.gen = max(slot.workers, default=0)
            if draining is None:
                slot.guess_draining({who.gen for who in leaving if who.slot == index})
            else:
                slot.draining = {who.gen for who in draining if who.slot == index}
        for who, at in (drains_until or {}).items():
            if who.slot in inherited.slots:
                inherited.slots[who.slot].ends_at[who.gen] = at
        for index, gen in (gens or {}).items():
            slot = inherited._slot(index)
            slot.gen = max(slot.gen, gen)
        return inherited

    def _take(self, name: str, fd: int) -> bool:
        match read_name(name):
            case Kind.SCOREBOARD, []:
                self.scoreboard = fd
            case Kind.LISTENER, [slot, index]:
                self._slot(slot).listeners[index] = fd
            case Kind.SHARED, [_, device, inode]:
                self.shared.append(InheritedShared(name, fd, (device, inode)))
            case Kind.LENT, [_]:
                self.shared.append(InheritedShared(name, fd, lent=True))
            case Kind.INBOX_R, [slot]:
                self._slot(slot).inbox_r = fd
            case Kind.INBOX_W, [slot]:
                self._slot(slot).inbox_w = fd
            case (Kind.CONTROL | Kind.PIPE | Kind.PIDFD) as kind, [slot, gen]:
                self._slot(slot).workers.setdefault(gen, {})[kind] = fd
            case Kind.UNREADY, [_, _]:
                self.unready.append(fd)
            case _:
                return False
        return True

    def _slot(self, slot: int) -> InheritedSlot:
        return self.slots.setdefault(slot, InheritedSlot())

    def shared_sockets(self) -> list[InheritedShared]:
        """The UNIX sockets, which the caller owns. Those of a socket unit have other names."""
        taken = list(self.shared)
        for name, fd in list(self.unknown.items()):
            if is_listening_unix(fd):
                taken.append(InheritedShared(name, self.unknown.pop(name), lent=True))
        return taken

    def serving(self) -> set[WorkerId]:
        """The workers that accept."""
        newest = {
            index: max(set(slot.whole) - slot.draining, default=0)
            for index, slot in self.slots.items()
        }
        return {WorkerId(index, gen) for index, gen in newest.items() if gen}

    def left(
        self, listen: tuple[Address, ...], *, kept: Container[WorkerId]
    ) -> tuple[FormerSlot, ...]:
        """What the fleet has to know of each slot; to be called after :meth:`fit_listeners`.

        ``kept``: workers that serve and need not be replaced.
        """
        return tuple(
            FormerSlot(
                slot=index,
                gen=slot.gen,
                bound=(bound := slot.has_listeners(listen)),
                serving=(serving := max(set(slot.workers) - slot.draining, default=None)),
                draining=tuple(sorted(slot.draining & set(slot.workers))),
                keep=serving is not None and WorkerId(index, serving) in kept and bound,
                ends_at=slot.ends_at,
            )
            for index, slot in sorted(self.slots.items())
        )

    def is_whole(self, listen: tuple[Address, ...]) -> bool:
        """Whether the workers that serve have everything that new ones in their places would have.

        What the service manager did not keep is made anew, and they would never know of it: clients
        would wait there for good. To be called after :meth:`fit_listeners`.
        """
        return self.scoreboard is not None and all(
            slot.inbox_r is not None
            and slot.inbox_w is not None
            and slot.has_listeners(listen)
            and not slot.refitted
            for slot in self.slots.values()
            if slot.serves
        )

    def worker_ids(self) -> set[WorkerId]:
        """The workers that are still there, whatever they do."""
        return {WorkerId(index, gen) for index, slot in self.slots.items() for gen in slot.workers}

    def kept_by_handover(self) -> Iterator[str]:
        """The names of what only ``--handover`` keeps in the store: inboxes, and workers."""
        for index, slot in self.slots.items():
            yield from (compose_name(kind, index) for kind in (Kind.INBOX_R, Kind.INBOX_W))
            for gen in slot.workers:
                yield from worker_names(WorkerId(index, gen))

    def drop_useless(self) -> None:
        """Close incomplete workers, and what nobody knows."""
        for name, fd in self.unknown.items():
            self._drop(name, fd)
        self.unknown.clear()
        for index, slot in self.slots.items():
            for gen in slot.workers.keys() - set(slot.whole):
                for kind, fd in slot.workers.pop(gen).items():
                    self._drop(compose_name(kind, index, gen), fd)
                slot.draining.discard(gen)

    def fit_listeners(self, listen: tuple[Address, ...], *, held: Container[str] = ()) -> None:
        """See to it that the slots have listeners of these addresses, or none.

        ``held``: addresses of the former master. Its workers may hold one whose sockets were lost.
        OSError: an address cannot be bound; nothing has changed, and it may be tried again.
        """
        wanted = tcp_only(listen)
        formers = [slot.listeners for slot in self.slots.values()]
        opened: set[HostPort] = find_bound((fd for each in formers for fd in each.values()), wanted)
        if any(slot.serves for slot in self.slots.values()):
            opened.update(each for each in wanted if str(each) in held)
        fitted: dict[int, dict[int, int]] = {}
        try:
            for index, slot in self.slots.items():
                fitted[index] = fit_listeners(slot.listeners, wanted, opened=opened)
        except BaseException:
            for index, listeners in fitted.items():
                close_all(list(set(listeners.values()) - set(self.slots[index].listeners.values())))
            raise
        for index, listeners in fitted.items():
            self._replace_listeners(index, listeners)

    def _replace_listeners(self, index: int, listeners: dict[int, int]) -> None:
        slot = self.slots[index]
        former, slot.listeners = slot.listeners, listeners
        slot.refitted = not set(listeners.values()) <= set(former.values())
        for number, fd in former.items():
            if listeners.get(number) == fd:
                continue
            if fd in listeners.values():
                self.dropped.append(compose_name(Kind.LISTENER, index, number))
            else:
                self._drop(compose_name(Kind.LISTENER, index, number), fd)
        for number, fd in listeners.items():
            if former.get(number) != fd:
                self.renamed[compose_name(Kind.LISTENER, index, number)] = fd

    def _drop(self, name: str, fd: int) -> None:
        self.dropped.append(name)
        with contextlib.suppress(OSError):
            os.close(fd)

    def identify(self) -> None:
        """Find the process of each pidfd, which takes a descriptor for a moment.

        OSError: there is none. To be called before anything is taken over: a start that fails then
        is made again with all that was inherited, and one that fails later has lost some of it.
        """
        workers = [parts for slot in self.slots.values() for parts in slot.workers.values()]
        theirs = [parts[Kind.PIDFD] for parts in workers if Kind.PIDFD in parts]
        for pidfd in (*self.unready, *theirs):
            self.pids[pidfd] = _pid_of(pidfd)

    def children(self, index: int) -> Iterator[tuple[WorkerId, Child]]:
        """The live workers of one slot; the caller owns them."""
        for gen, parts in self.slots[index].workers.items():
            yield (
                WorkerId(index, gen),
                Child(
                    pid=self.pids[parts[Kind.PIDFD]],
                    pidfd=parts[Kind.PIDFD],
                    pipe_w=parts[Kind.PIPE],
                    control=socket.socket(fileno=parts[Kind.CONTROL]),
                    ours=is_our_child(parts[Kind.PIDFD]),
                ),
            )


def _pid_of(pidfd: int) -> int:
    """The process of a pidfd, -1 if it was reaped (proc_pid_fdinfo(5))."""
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as lines:
        for line in lines:
            key, _, value = line.partition(":")
            if key == "Pid":
                return int(value)
    return -1


def is_our_child(pidfd: int) -> bool:
    """Whether the process is a child of ours; one that has exited is not reaped by this."""
    try:
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except OSError:
        return False
    return True
