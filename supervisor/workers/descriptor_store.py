"""Where the pool keeps duplicates of descriptors that must outlive the master."""

from __future__ import annotations

from typing import Protocol


class DescriptorStore(Protocol):
    """Keeps a duplicate of a descriptor under a name, until it is removed."""

    def keep(self, name: str, fd: int) -> None: ...
    def remove(self, name: str) -> None: ...


class _NoDescriptorStore:
    """There is no service manager that keeps anything."""

    def keep(self, name: str, fd: int) -> None:
        pass

    def remove(self, name: str) -> None:
        pass


NO_DESCRIPTOR_STORE: DescriptorStore = _NoDescriptorStore()
