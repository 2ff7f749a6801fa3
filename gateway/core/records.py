"""``dataclass`` as the standard library's, for the classes of which there are a hundred and fifty.

The library compiles up to eight methods for each class: 1.2 ms and 15 KB each, which was half of
the program's start and a tenth of its memory. Here it compiles ``__init__`` alone, and all classes
share the other methods: 0.3 ms and 5 KB for a class, and an instance in a fifth of the time.

What differs: ``frozen=True`` is held by the type checker, not at run time. ``order`` and rarer
arguments are not offered; a class that needs them takes the library's own ``dataclass``. The
library's ``field``, ``replace``, ``fields`` and ``asdict`` work with these classes too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(
        *, frozen: bool = False, slots: bool, kw_only: bool = False, eq: bool = True
    ) -> Callable[[type], type]:
        """Decorate a class: its annotations become the arguments of its ``__init__``.

        ``frozen``: its instances have a hash, and the type checker refuses assignments to them.
        ``eq=False``: an instance equals itself alone.
        """

        def make(kind: type) -> type:
            # The library would have `inspect` write a signature in the place of no docstring.
            kind.__doc__ = kind.__doc__ or kind.__name__
            made = dataclasses.dataclass(repr=False, eq=False, slots=slots, kw_only=kw_only)(kind)
            made.__repr__ = _represent
            if eq:
                made.__eq__ = _equals
                made.__hash__ = _hash if frozen else None
                made._compared = _values_of(made)
            return made

        return make


def _values_of(kind: Any) -> Callable[[Any], Any]:
    """What fetches the values that two instances are compared by: one value or a tuple of many."""
    names = [each.name for each in dataclasses.fields(kind) if each.compare]
    return attrgetter(*names) if names else type


def _equals(self: Any, other: Any) -> bool:
    if other.__class__ is not self.__class__:
        return NotImplemented
    values = self._compared
    same: bool = values(self) == values(other)
    return same


def _hash(self: Any) -> int:
    return hash(self._compared(self))


def _represent(self: Any) -> str:
    shown = (each.name for each in dataclasses.fields(self) if each.repr)
    values = ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)
    return f"{type(self).__qualname__}({values})"
