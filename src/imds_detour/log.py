"""What is said on stderr: at most one line a step. stdout is the app's."""

from __future__ import annotations

import os
from contextlib import suppress

from imds_detour.text import printable, readable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from imds_detour.deadline import Deadline
    from imds_detour.errors import DetourError

REPEAT = 5.0
"""Seconds between two lines about the same wait."""


class Log:
    """Writes lines in the way that MOCK_LOG asks for.

    Attributes:
        format: ``text``, ``json``, ``quiet`` or ``debug``.
        deadline: of the whole start; what a line says of time counts from its beginning. Both are set anew once the
            settings are known.

    """

    __slots__ = ("_waited", "deadline", "format")

    def __init__(self, format: str, deadline: Deadline) -> None:  # noqa: A002  (the field's word)
        self.format = format
        self.deadline = deadline
        self._waited: float | None = None

    def step(self, text: str) -> None:
        """Say what has just been done; for ``debug`` only."""
        if self.format == "debug":
            _line(f"{self.deadline.elapsed() * 1000:6.0f} ms  {text}")

    def warning(self, text: str) -> None:
        """Say what the user should know though it stops nothing."""
        if self.format == "json":
            _object({"event": "warning", "text": text})
        elif self.format != "quiet":
            _line(text)

    def waiting(self, error: DetourError) -> None:
        """Say what is being waited for: the first failure, then a line every REPEAT seconds."""
        elapsed = self.deadline.elapsed()
        if self._waited is not None and elapsed - self._waited < REPEAT:
            return
        self._waited = elapsed
        if self.format == "json":
            _object({"event": "waiting", "step": error.step, "reason": error.reason, "seconds": round(elapsed, 3)})
        elif self.format != "quiet":
            limit = "" if self.deadline.limit == float("inf") else f" of {self.deadline.limit:g}"
            _line(f"waiting: {error.reason} ({elapsed:.1f}{limit} s)")

    def success(self, text: str, facts: Mapping[str, str | int | float | None]) -> None:
        """Say that the app starts now, and with what behind it."""
        if self.format == "json":
            _object({"event": "ready", **facts})
        elif self.format != "quiet":
            _line(text)

    def failure(self, error: DetourError) -> None:
        """Say why the app does not start, and what to do."""
        if self.format == "json":
            _object({"event": "failed", "step": error.step, "reason": error.reason, "remedy": error.remedy})
        else:
            _line(f"{error.reason}; {error.remedy}" if error.remedy else error.reason)


def _object(facts: Mapping[str, str | int | float | None]) -> None:
    import json  # noqa: PLC0415  (3 ms that only MOCK_LOG=json pays)

    # A byte that is no UTF-8 would become half a surrogate pair, at which strict readers give up on the line.
    _write(json.dumps({name: readable(fact) if isinstance(fact, str) else fact for name, fact in facts.items()}))


def _line(text: str) -> None:
    # Names and replies come from outside: none of them may start a line of its own or move the cursor.
    _write("imds-detour: " + printable(text))


def _write(line: str) -> None:
    with suppress(OSError):  # stderr is closed, full or gone: the exit status still tells
        os.write(2, line.encode("utf-8", "backslashreplace") + b"\n")
