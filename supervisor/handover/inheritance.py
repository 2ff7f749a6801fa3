"""From one master to the next: what is taken over at the start.

A next image of ours (USR2) gets every descriptor and the handover state. A next process under a
service manager that keeps descriptors gets what their names say.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from dataclasses import field

from gateway.core.records import dataclass
from gateway.descriptors import close_all
from supervisor.core.config import Config
from supervisor.core.handover_state import HandoverState, Image
from supervisor.core.next_master import after_restart, fit
from supervisor.core.workers.descriptor_names import Kind, read_name
from supervisor.handover import systemd
from supervisor.handover.record import RECORD_NAME, write_record
from supervisor.handover.state import HANDOVER_VARIABLE, read_state
from supervisor.workers.inherited import InheritedDescriptors
from supervisor.workers.kept_descriptors import is_as_named


@dataclass(slots=True)
class Inheritance:
    """What this master starts with; empty if it is the first.

    ``inherited`` are the worker pool's descriptors; :meth:`take` gives out those of other parts.
    ``document``: the handover document's descriptor, after USR2 and until :meth:`commit`.
    ``crashed``: whether the master before us did; its record is what ``state`` is of.
    """

    state: HandoverState = field(default_factory=HandoverState)
    inherited: InheritedDescriptors = field(default_factory=InheritedDescriptors)
    others: dict[str, int] = field(default_factory=dict)
    files: dict[str, tuple[int, int]] = field(default_factory=dict)
    """After USR2, what the descriptors of ``state`` referred to, see :func:`find_files`."""
    document: int | None = None
    crashed: bool = False

    @property
    def restarted(self) -> bool:
        """Whether the master before us left in order. Until :meth:`commit`."""
        return not self.crashed and not self.goes_back

    @property
    def goes_back(self) -> bool:
        """Whether a failure now has ``launch`` execute the image before, with all it had."""
        return self.document is not None

    def take(self, kind: str) -> dict[str, int]:
        """Descriptors named ``KIND`` or ``KIND.…``; the caller owns them from now on."""
        taken = {name: fd for name, fd in self.others.items() if name.split(".")[0] == kind}
        for name in taken:
            del self.others[name]
        return taken

    def fit(self, config: Config, now: float) -> None:
        """Another process may have another configuration: forget what does not belong to it.

        After USR2 that is found out step by step, and the image before is there to go back to.
        """
        if not self.goes_back:
            self.state = fit(self.state, config, now)

    def is_crash_of(self, image: Image) -> bool:
        """Whether the master before us crashed and was this very program."""
        before = self.state.image
        return self.crashed and before is not None and before.files == image.files

    @property
    def took_over(self) -> bool:
        """Whether a former image, or a former master, left something that serves clients.

        An image can be gone back to. What the service manager keeps serves while there are workers.
        """
        inherited = self.inherited
        if inherited.told_to_drain:
            return self.has_sockets
        return any(slot.serves for slot in inherited.slots.values())

    @property
    def has_sockets(self) -> bool:
        """Whether there are sockets of before, where clients may wait for this master."""
        return bool(self.inherited.slots or self.inherited.shared)

    def replaces(self, image: Image) -> bool:
        """Whether this program takes over from workers that the service manager kept, and replaces
        them."""
        return self.took_over and not self.goes_back and not self.is_crash_of(image)

    def commit(self, environ: MutableMapping[str, str]) -> None:
        """From here on this image is responsible for what it inherited."""
        environ.pop(HANDOVER_VARIABLE, None)
        if self.document is not None:
            os.close(self.document)
            self.document = None


def take_over(environ: MutableMapping[str, str]) -> Inheritance:
    """What the image before us left, else what the service manager kept, else nothing."""
    if document := environ.get(HANDOVER_VARIABLE, ""):
        left = read_state(int(document))
        os.set_inheritable(int(document), False)
        for fd in left.descriptors.values():
            os.set_inheritable(fd, False)
        inherited = InheritedDescriptors.from_names(
            left.descriptors.items(),
            gens=left.gens,
            draining=left.draining,
            drains_until=left.drains_until,
        )
        others, inherited.unknown = inherited.unknown, {}
        return Inheritance(left, inherited, others, find_files(left.descriptors), int(document))
    if stored := systemd.take_stored(environ):
        return _after_a_restart(stored)
    return Inheritance()


def find_files(descriptors: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """Device and inode of each: what is closed and made anew often gets the same number."""
    stats = {name: os.fstat(fd) for name, fd in descriptors.items()}
    return {name: (stat.st_dev, stat.st_ino) for name, stat in stats.items()}


def is_left_by_crash(environ: Mapping[str, str]) -> bool:
    """Whether the service manager kept workers of a master that crashed; nothing is taken."""
    stored = systemd.find_stored(environ)
    records = [fd for name, fd in stored if name == RECORD_NAME]
    serves = any(_is_control(name) for name, _ in stored)
    return serves and bool(records) and read_state(records[0]).image is not None


def _is_control(name: str) -> bool:
    """Whether it is the name of a worker's control socket."""
    known = read_name(name)
    return known is not None and known[0] is Kind.CONTROL


def forget_crash(environ: Mapping[str, str]) -> None:
    """An operator stops the start that followed a crash: the next one is asked for, a restart."""
    for name, fd in systemd.find_stored(environ):
        if name == RECORD_NAME:
            write_record(fd, after_restart(read_state(fd)))
            return  # the newest comes first


def _after_a_restart(stored: list[tuple[str, int]]) -> Inheritance:
    """What the service manager kept; the record says whether the master before us crashed."""
    records = [fd for name, fd in stored if name == RECORD_NAME]
    state = read_state(records[0]) if records else HandoverState()  # the newest comes first
    close_all(records)
    rest = [(name, fd) for name, fd in stored if name != RECORD_NAME]
    usable = [(name, fd) for name, fd in rest if is_as_named(name, fd)]
    useless = [(name, fd) for name, fd in rest if (name, fd) not in usable]
    close_all([fd for _, fd in useless])
    # A record may be older than the last workers, so names count too; but no number comes again.
    inherited = InheritedDescriptors.from_names(
        usable, gens=state.gens, leaving=state.draining, drains_until=state.drains_until
    )
    inherited.dropped.extend({name for name, _ in useless} - {name for name, _ in usable})
    return Inheritance(state, inherited, crashed=state.image is not None)
