"""Value classes behave as frozen dataclasses with slots."""

import copy
import pickle

import pytest

from imds_detour.value import Value


class Point(Value):
    """A value with a default."""

    x: int
    y: int = 2


class Other(Value):
    """Another class with the same fields as Point."""

    x: int
    y: int = 2


def test_fields_are_set_by_position_name_or_default() -> None:
    """Fields are set by position, by name or by default; missing, extra and unknown ones raise TypeError."""
    assert [(p.x, p.y) for p in (Point(1), Point(1, 3), Point(y=3, x=1))] == [(1, 2), (1, 3), (1, 3)]
    wrong: list[tuple[tuple[int, ...], dict[str, int]]] = [((), {}), ((1, 2, 3), {}), ((1,), {"z": 3}), ((), {"y": 1})]
    for given, named in wrong:
        with pytest.raises(TypeError, match="Point takes x, y"):
            Point(*given, **named)


def test_equality_and_hash_follow_class_and_fields() -> None:
    """Values are equal, with equal hashes, if their classes and fields are equal, as after pickling and copying."""
    assert (Point(1), hash(Point(1))) == (Point(1, 2), hash(Point(1, 2)))
    assert Point(1) != Point(2)
    assert Point(1) != Other(1)
    assert Point(1) != (1, 2)
    # Values cross to the firewall's helper process and back.
    point = Point(1, 3)
    assert pickle.loads(pickle.dumps(point)) == copy.copy(point) == point  # noqa: S301  (bytes of this test)


def test_values_are_frozen_and_slotted() -> None:
    """No attribute of a value can be changed, deleted or added."""
    point = Point(1)
    with pytest.raises(AttributeError, match="Point is frozen: x"):
        point.x = 2  # type: ignore[misc]  # mypy knows it as well
    with pytest.raises(AttributeError, match="Point is frozen: x"):
        del point.x
    with pytest.raises(AttributeError):
        point.z = 3  # type: ignore[attr-defined]  # likewise
    assert not hasattr(point, "__dict__")


def test_values_match_by_position_and_show_their_fields() -> None:
    """Values match by position in a case clause, and repr() is that of a dataclass."""
    match Point(1, 3):
        case Point(x, y):
            assert (x, y) == (1, 3)
    assert repr(Point(1, 3)) == "Point(x=1, y=3)"


def test_replace_returns_a_changed_copy() -> None:
    """replace() changes the named fields in a copy, and refuses unknown names."""
    point = Point(1, 3)
    assert (point.replace(y=4), point) == (Point(1, 4), Point(1, 3))
    with pytest.raises(TypeError, match="Point takes x, y"):
        point.replace(z=1)
