"""Values behave as frozen, slotted dataclasses do, which they stand in for."""

from __future__ import annotations

import copy
import pickle

import pytest

from imds_detour.value import Value


class Point(Value):
    """A value with a default."""

    x: int
    y: int = 2


class Other(Value):
    """A value of the same parts."""

    x: int
    y: int = 2


def test_parts_come_by_position_by_name_or_by_default() -> None:
    """Each part has its value, and the class holds no default of its own in the way of the slots."""
    assert [(p.x, p.y) for p in (Point(1), Point(1, 3), Point(y=3, x=1))] == [(1, 2), (1, 3), (1, 3)]


@pytest.mark.parametrize(("given", "named"), [((), {}), ((1, 2, 3), {}), ((1,), {"z": 3}), ((), {"y": 1})])
def test_other_parts_than_there_are_raise_type_error(given: tuple[int, ...], named: dict[str, int]) -> None:
    """Too few, too many or unknown ones are refused, with the names that there are."""
    with pytest.raises(TypeError, match="Point takes x, y"):
        Point(*given, **named)


def test_values_are_equal_and_hash_alike_when_their_parts_and_classes_are() -> None:
    """Another class of the same parts is another value."""
    assert Point(1) == Point(1, 2)
    assert hash(Point(1)) == hash(Point(1, 2))
    assert Point(1) != Point(2)
    assert Point(1) != Other(1)
    assert Point(1) != (1, 2)


def test_values_are_frozen_and_slotted() -> None:
    """Nothing of them can be changed, deleted or added."""
    point = Point(1)
    with pytest.raises(AttributeError, match="Point is frozen: x"):
        point.x = 2  # type: ignore[misc]  # mypy knows it as well
    with pytest.raises(AttributeError, match="Point is frozen: x"):
        del point.x
    with pytest.raises(AttributeError):
        point.z = 3  # type: ignore[attr-defined]  # likewise
    assert not hasattr(point, "__dict__")


def test_values_survive_pickling_and_copying() -> None:
    """They cross to the firewall's helper and back as they are."""
    point = Point(1, 3)
    assert pickle.loads(pickle.dumps(point)) == copy.copy(point) == point  # noqa: S301  (our own bytes)


def test_values_match_by_position_and_show_their_parts() -> None:
    """As in ``case Dnat(to)``; the representation is that of a dataclass."""
    match Point(1, 3):
        case Point(x, y):
            assert (x, y) == (1, 3)
    assert repr(Point(1, 3)) == "Point(x=1, y=3)"


def test_a_value_with_other_parts_is_another_value() -> None:
    """What is not named stays; what is no part is refused."""
    point = Point(1, 3)
    assert (point.replace(y=4), point) == (Point(1, 4), Point(1, 3))
    with pytest.raises(TypeError, match="Point takes x, y"):
        point.replace(z=1)
