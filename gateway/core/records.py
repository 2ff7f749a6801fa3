"""``dataclass`` as the standard library's, for the classes of which there are some 160.

The library compiles up to eight methods when a class is made: 1.2 ms and 15 KB each, which was half
of the program's start and a tenth of its memory. Here one method is compiled, ``__init__``, and
that when the first instance is made, which for many classes is never. All classes share the other
methods. A class costs 0.05 ms and 3 KB, and an instance is made in a fifth of the time.

What differs: ``frozen=True`` is held by the type checker, not at run time, and every class has
slots. ``order`` and rarer arguments are not offered; a class that needs them takes the library's
own ``dataclass``. The library's ``field``, ``fields``, ``replace`` and ``asdict`` work with these
classes too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
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
        ``eq=False``: an instance equals itself alone. There is no class without ``slots``.
        """
        if not slots:
            raise TypeError("without slots it is the standard library's dataclass")
        shared = {"__eq__": _equals, "__hash__": _hash if frozen else None} if eq else {}

        def make(kind: type) -> type:
            body = {name: value for name, value in vars(kind).items() if name not in _GIVEN}
            return _make(kind, body, shared, kw_only=kw_only)

        return make


_classes: list[type] = []
"""All that were made, complete or not."""


def complete_all(package: str) -> None:
    """Complete the classes of ``package``: before a fork, so that the children share them."""
    for kind in _classes:
        if kind.__module__.startswith(f"{package}."):
            dataclasses.fields(kind)


_GIVEN = frozenset({"__dict__", "__weakref__"})
"""What Python puts into the body of a class by itself."""


def _make(kind: type, body: Mapping[str, Any], shared: Mapping[str, Any], *, kw_only: bool) -> Any:
    """A class with slots like ``kind``, whose ``body`` it has; ``shared`` are methods of all."""

    def complete() -> None:
        # Without a docstring the library has `inspect` write a signature.
        own = {**body, "__doc__": "is there", "__qualname__": kind.__qualname__}
        make = dataclasses.dataclass(repr=False, eq=False, kw_only=kw_only)
        whole: type = make(type(kind.__name__, (), own))
        for name in ("__init__", "__match_args__", "__dataclass_fields__"):
            setattr(made, name, getattr(whole, name))
        compared = [each.name for each in dataclasses.fields(made) if each.compare]
        made._compared = attrgetter(*compared) if compared else type

    made: Any = type(
        kind.__name__,
        (),
        {
            **{name: value for name, value in body.items() if name not in kind.__annotations__},
            **shared,
            "__qualname__": kind.__qualname__,
            "__slots__": tuple(kind.__annotations__),
            "__init__": _OnDemand("__init__", complete),
            "__dataclass_fields__": _OnDemand("__dataclass_fields__", complete),
            "__repr__": _represent,
        },
    )
    _classes.append(made)
    return made


class _OnDemand:
    """An attribute of a class that is set, by completing the class, when it is first asked for."""

    __slots__ = ("_complete", "_name")

    def __init__(self, name: str, complete: Callable[[], None]) -> None:
        self._name = name
        self._complete = complete

    def __get__(self, instance: object, owner: type) -> Any:
        self._complete()
        return getattr(owner if instance is None else instance, self._name)


def _equals(self: Any, other: Any) -> Any:
    if other.__class__ is not self.__class__:
        return NotImplemented
    values = self._compared
    return values(self) == values(other)


def _hash(self: Any) -> int:
    return hash(self._compared(self))


def _represent(self: Any) -> str:
    shown = (each.name for each in dataclasses.fields(self) if each.repr)
    values = ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)
    return f"{type(self).__qualname__}({values})"
