"""MOCK_USER: a user and an optional group, by name or number."""

from __future__ import annotations

from imds_detour.config.mock_address import BadValueError
from imds_detour.text import DIGITS, is_made_of, quoted
from imds_detour.value import Value

MAX_ID = 2**32 - 2
"""The largest number of a user or group: setresuid(2) takes the next one, -1, for "unchanged"."""


class UserSpec(Value):
    """A user and an optional group, as in MOCK_USER."""

    user: str
    group: str | None

    def __str__(self) -> str:
        return self.user if self.group is None else f"{self.user}:{self.group}"


def parse(text: str) -> UserSpec:
    """Return the user in ``user[:group]``; BadValueError if it is not valid."""
    parts = text.split(":")
    for part in parts:
        if not part or len(parts) > 2 or not part.isprintable():
            raise BadValueError
        if DIGITS.issuperset(part) and parse_id(part) is None:
            raise BadValueError(f"{quoted(part)} is not 0 to {MAX_ID}")
    return UserSpec(parts[0], parts[1] if len(parts) == 2 else None)


def parse_id(text: str) -> int | None:
    """Return the number of a user or group, None for a name. int() would also take "+1", " 1" and "1_0"."""
    return int(text) if is_made_of(DIGITS, text, 10) and int(text) <= MAX_ID else None
