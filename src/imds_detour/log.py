"""Lines on stderr, at most one a step. stdout is the app's."""

from __future__ import annotations

import os
import time
from contextlib import suppress

from imds_detour.text import printable, readable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from imds_detour.deadline import Deadline
    from imds_detour.errors import DetourError

    Facts = Mapping[str, str | int | float | None]

REPEAT = 5.0
"""Seconds between two lines about the same wait."""


class Log:
    """Writes lines in the format that MOCK_LOG asks for: ``text``, ``json``, ``quiet`` or ``debug``."""

    __slots__ = ("_last_wait", "clock", "format", "start")

    def __init__(self, format: str, clock: Callable[[], float] = time.monotonic) -> None:  # noqa: A002  (the field's word)
        self.format = format
        self.clock = clock  # monotonic, in seconds
        self.start = clock()  # ``debug`` lines count from here
        self._last_wait: float | None = None

    def elapsed(self) -> float:
        """Return the seconds since the start."""
        return self.clock() - self.start

    def step(self, text: str) -> None:
        """Report a step that is done; for ``debug`` only."""
        if self.format == "debug":
            _line(f"{self.elapsed() * 1000:6.0f} ms  {text}")

    def warning(self, text: str) -> None:
        """Report a problem that stops nothing."""
        if self.format == "json":
            _object({"event": "warning", "text": text})
        elif self.format != "quiet":
            _line(text)

    def waiting(self, error: DetourError, deadline: Deadline) -> None:
        """Report a wait: the first failure, then a line every REPEAT seconds."""
        now = self.clock()
        if self._last_wait is not None and now - self._last_wait < REPEAT:
            return
        self._last_wait = now
        elapsed = deadline.elapsed()
        if self.format == "json":
            _object({"event": "waiting", "step": error.step, "reason": error.reason, "seconds": round(elapsed, 3)})
        elif self.format != "quiet":
            limit = "" if deadline.limit == float("inf") else f" of {deadline.limit:g}"
            _line(f"waiting: {error.reason} ({elapsed:.1f}{limit} s)")

    def success(self, text: str, facts: Facts) -> None:
        """Report that the app starts now; ``facts`` are the keys of the JSON event."""
        if self.format == "json":
            _object({"event": "ready", **facts})
        elif self.format != "quiet":
            _line(text)

    def failure(self, error: DetourError) -> None:
        """Report why the app does not start, and the remedy."""
        if self.format == "json":
            _object({"event": "failed", "step": error.step, "reason": error.reason, "remedy": error.remedy})
        else:
            _line(f"{error.reason}; {error.remedy}" if error.remedy else error.reason)


def _object(facts: Facts) -> None:
    import json  # noqa: PLC0415  (costly to import; only MOCK_LOG=json needs it)

    # Strict readers reject a line with half a surrogate pair, which is how Python represents a byte that is not UTF-8.
    _write(json.dumps({name: readable(fact) if isinstance(fact, str) else fact for name, fact in facts.items()}))


def _line(text: str) -> None:
    # Names and replies come from outside: none of them may start a new line or move the cursor.
    _write("imds-detour: " + printable(text))


def _write(line: str) -> None:
    with suppress(OSError):  # stderr is closed or full: the exit status still tells
        os.write(2, line.encode("utf-8", "backslashreplace") + b"\n")
