"""``dataclass`` as the standard library's, for the classes of which there are nearly 200.

The library compiles up to eight methods when a class is made: 1.2 ms and 15 KB each, which was half
of the program's start and a tenth of its memory. Here one method is compiled, ``__init__``, and
that when the first instance is made, which for many classes is never. All classes share the other
methods, and the library describes the fields when somebody asks for them. A class costs 0.05 ms
and 3 KB, its first instance 0.1 ms, and another one a fifth of the library's time.

What differs: ``frozen=True`` is held by the type checker, not at run time, and every class has
slots. ``order`` and rarer arguments are not offered, nor are ``ClassVar``, ``InitVar``,
``field(init=False)`` and ``__post_init__``; a class that needs them takes the library's own
``dataclass``. The library's ``field``, ``fields``, ``replace`` and ``asdict`` work with these
classes too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
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
            kind.__init__  # type: ignore[misc]  # noqa: B018 - asking for it makes it
            dataclasses.fields(kind)


_GIVEN = frozenset({"__dict__", "__weakref__"})
"""What Python puts into the body of a class by itself."""


def _make(kind: type, body: Mapping[str, Any], shared: Mapping[str, Any], *, kw_only: bool) -> Any:
    """A class with slots like ``kind``, whose ``body`` it has; ``shared`` are methods of all."""

    def complete() -> None:
        made.__init__ = _compile_init(made.__qualname__, names, body, kw_only=kw_only)
        compared = [name for name in names if getattr(body.get(name), "compare", True)]
        made._compared = attrgetter(*compared) if compared else type

    def describe() -> None:
        # Without a docstring the library has `inspect` write a signature.
        own = {**body, "__doc__": "is there", "__qualname__": kind.__qualname__}
        make = dataclasses.dataclass(init=False, repr=False, eq=False, kw_only=kw_only)
        whole: Any = make(type(kind.__name__, (), own))
        made.__dataclass_fields__ = whole.__dataclass_fields__

    names = tuple(kind.__annotations__)
    made: Any = type(
        kind.__name__,
        (),
        {
            **{name: value for name, value in body.items() if name not in names},
            **shared,
            "__qualname__": kind.__qualname__,
            "__slots__": names,
            "__match_args__": () if kw_only else names,
            "__init__": _OnDemand("__init__", complete),
            "__dataclass_fields__": _OnDemand("__dataclass_fields__", describe),
            "__repr__": _represent,
        },
    )
    _classes.append(made)
    return made


_NOT_GIVEN = object()
"""Stands in a signature for what a factory makes."""


def _compile_init(
    owner: str, names: Sequence[str], body: Mapping[str, Any], *, kw_only: bool
) -> Callable[..., None]:
    """The ``__init__`` of the class ``owner``: sets ``names``, whose defaults are in ``body``."""
    scope: dict[str, Any] = {"_NOT_GIVEN": _NOT_GIVEN}
    parameters = ["self", "*"] if kw_only and names else ["self"]
    lines = []
    for name in names:
        parameter, value = name, name
        default = body.get(name, dataclasses.MISSING)
        if isinstance(default, dataclasses.Field):
            if default.default_factory is not dataclasses.MISSING:
                scope[f"_make_{name}"] = default.default_factory
                parameter = f"{name}=_NOT_GIVEN"
                value = f"_make_{name}() if {name} is _NOT_GIVEN else {name}"
            default = default.default
        if default is not dataclasses.MISSING:
            scope[f"_default_{name}"] = default
            parameter = f"{name}=_default_{name}"
        parameters.append(parameter)
        lines.append(f" self.{name} = {value}\n")
    text = f"def __init__({', '.join(parameters)}):\n{''.join(lines) or ' pass'}"
    exec(text, scope)  # noqa: S102 - as the library does; of our own classes' names
    init: Callable[..., None] = scope.pop("__init__")
    init.__qualname__ = f"{owner}.__init__"
    return init


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
