"""Our ``dataclass`` makes what the standard library's makes; the library's is the reference."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import field, replace

import orjson
import pytest

from gateway.core import records


@records.dataclass(frozen=True, slots=True)
class Point:
    """A place."""

    x: int
    y: int = 0
    seen: int = field(default=0, compare=False, repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Reference:
    x: int
    y: int = 0
    seen: int = field(default=0, compare=False, repr=False)


@records.dataclass(frozen=True, slots=True)
class Wrapped:
    """One value, and one word for all."""

    name: str


@records.dataclass(frozen=True, slots=True)
class Nothing:
    """No value at all."""


@records.dataclass(slots=True, kw_only=True)
class Tally:
    counts: dict[str, int] = field(default_factory=dict)


@records.dataclass(slots=True, eq=False)
class Own:
    value: int


def test_equality_and_hash_are_those_of_the_compared_fields() -> None:
    assert Point(1, 2, seen=3) == Point(1, 2, seen=4)
    assert hash(Point(1, 2, seen=3)) == hash(Point(1, 2, seen=4)) == hash(Reference(1, 2))
    assert Point(1, 2) != Point(1, 3)
    assert Point(1, 2) != Reference(1, 2)  # type: ignore[comparison-overlap]
    assert (Wrapped("a"), Nothing()) == (Wrapped("a"), Nothing())
    assert Wrapped("a") != Wrapped("b")
    assert len({Wrapped("a"), Wrapped("a"), Nothing(), Nothing()}) == 2


def test_a_class_that_is_not_frozen_has_no_hash() -> None:
    assert Tally() == Tally(counts={})
    with pytest.raises(TypeError, match="unhashable"):
        hash(Tally())


def test_without_equality_an_instance_equals_itself_alone() -> None:
    one = Own(1)
    assert one == one
    assert one != Own(1)
    assert hash(one) is not None


def test_the_text_is_the_librarys() -> None:
    assert repr(Point(1, 2)) == repr(Reference(1, 2)).replace("Reference", "Point")
    assert (repr(Wrapped("a")), repr(Nothing())) == ("Wrapped(name='a')", "Nothing()")


def test_arguments_and_defaults_are_the_librarys() -> None:
    assert (Point(x=1).y, Tally().counts) == (0, {})
    assert Tally().counts is not Tally().counts
    with pytest.raises(TypeError, match="positional"):
        Tally({})  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="'x'"):
        Point()  # type: ignore[call-arg]


def test_a_class_without_slots_is_refused() -> None:
    with pytest.raises(TypeError, match="the standard library's"):
        records.dataclass(slots=False)


def test_there_is_no_room_for_another_attribute() -> None:
    with pytest.raises(AttributeError, match="other"):
        Tally().other = 1  # type: ignore[attr-defined]


def test_an_instance_is_written_as_json_before_anybody_asked_for_its_fields() -> None:
    @records.dataclass(slots=True)
    class Fresh:
        x: int
        many: list[int] = field(default_factory=list)

    assert orjson.loads(orjson.dumps(Fresh(1))) == {"x": 1, "many": []}
    assert dataclasses.fields(Fresh)[1].default_factory is list


def test_what_others_do_with_a_dataclass_works() -> None:
    point = Point(1, 2, 3)
    assert replace(point, y=5) == Point(1, 5)
    assert dataclasses.asdict(point) == {"x": 1, "y": 2, "seen": 3}
    assert [each.name for each in dataclasses.fields(Point)] == ["x", "y", "seen"]
    assert copy.deepcopy(point) == copy.copy(point) == point
    assert orjson.loads(orjson.dumps(point)) == {"x": 1, "y": 2, "seen": 3}
    match point:
        case Point(x, y):
            assert (x, y) == (1, 2)


def test_a_class_has_the_names_of_its_source() -> None:
    assert (Point.__doc__, Point.__name__, Point.__module__) == ("A place.", "Point", __name__)
    with pytest.raises(TypeError, match=r"Point\.__init__\(\)"):
        Point()  # type: ignore[call-arg]


def test_the_classes_of_a_package_are_completed_ahead() -> None:
    @records.dataclass(frozen=True, slots=True)
    class Unused:
        x: int

    records.complete_all("gateway")
    assert not isinstance(vars(Unused)["__dataclass_fields__"], dict)
    records.complete_all(__name__.rpartition(".")[0])
    assert set(vars(Unused)["__dataclass_fields__"]) == {"x"}
