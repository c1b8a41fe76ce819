"""Values: frozen, slotted classes that are equal if their parts are.

They replace ``@dataclass(frozen=True, slots=True)``, which is costly in a start (bench/NOTES.md): it imports inspect,
builds each class twice, and compiles its methods from text. Here all classes share their methods.
"""

from __future__ import annotations

from itertools import repeat

TYPE_CHECKING = False  # here and in other modules of a start: the module typing is costly to import
if TYPE_CHECKING:
    from typing import Any, ClassVar, NoReturn, Self, dataclass_transform
else:

    def dataclass_transform(**_options: bool) -> object:
        """Do nothing: it is for type checkers."""
        return lambda decorated: decorated


class _Parts(type):
    """Makes a slot of each annotated name of a class, and keeps its default."""

    def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> _Parts:
        annotated = tuple(body.get("__annotations__", ()))
        body["_defaults"] = {name: body.pop(name) for name in annotated if name in body}
        body["__slots__"] = body["__match_args__"] = annotated
        return super().__new__(cls, name, bases, body)


_set = object.__setattr__


@dataclass_transform(frozen_default=True)
class Value(metaclass=_Parts):
    """The base of all values. Its parts are the annotated names of the class, in that order."""

    if TYPE_CHECKING:
        __match_args__: ClassVar[tuple[str, ...]]
    else:  # type checkers read the parts of each class instead

        def __init__(self, *given: object, **named: object) -> None:
            """Take the parts, by position or by name. Raises TypeError when there are too many, too few or others."""
            names = self.__slots__
            if len(given) != len(names) or named:
                parts = {**self._defaults, **dict(zip(names, given, strict=False)), **named}
                if len(given) > len(names) or len(parts) != len(names) or not parts.keys() <= set(names):
                    raise TypeError(f"{type(self).__name__} takes {', '.join(names)}")
                given = tuple(map(parts.__getitem__, names))
            any(map(_set, repeat(self), names, given))  # a loop in C: _set() returns None

        def __setattr__(self, name: str, _value: object = None) -> NoReturn:
            raise AttributeError(f"{type(self).__name__} is frozen: {name}")

        __delattr__ = __setattr__

    def replace(self, **changes: object) -> Self:
        """Return the same value with other parts, as dataclasses.replace() does."""
        return type(self)(**{**dict(zip(self.__match_args__, self._parts(), strict=True)), **changes})

    def _parts(self) -> tuple[object, ...]:
        return tuple(map(getattr, repeat(self), self.__match_args__))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Value) or type(other) is not type(self):
            return NotImplemented
        return self is other or self._parts() == other._parts()

    def __hash__(self) -> int:
        return hash(self._parts())

    def __repr__(self) -> str:
        parts = zip(self.__match_args__, self._parts(), strict=True)
        return f"{type(self).__qualname__}({', '.join(f'{name}={part!r}' for name, part in parts)})"

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        """Be pickled, and copied, as the class and its parts."""
        return type(self), self._parts()
