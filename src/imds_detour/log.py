"""Lines on stderr, at most one a step. stdout is the app's."""

from __future__ import annotations

import os
import stat
import time
from contextlib import closing, suppress

from imds_detour.deadline import Deadline
from imds_detour.lean import socket
from imds_detour.text import printable, readable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from imds_detour.errors import DetourError

    Facts = Mapping[str, str | int | float | None]

REPEAT = 5.0
"""Seconds between two lines about the same wait."""
MAX_BLOCKED = 1.0
"""Seconds to wait in all for a stderr that takes no line, as a full pipe that no process reads. Lines are then lost."""
PAUSE = 0.01  # seconds between two attempts
OWN = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class Log:
    """Writes lines in the format that MOCK_LOG asks for: ``text``, ``json``, ``quiet`` or ``debug``."""

    __slots__ = ("_blocked", "_last_wait", "format", "since")

    def __init__(self, format: str, clock: Callable[[], float] = time.monotonic) -> None:  # noqa: A002  (the field's word)
        self.format = format
        self.since = Deadline(float("inf"), clock)  # ``debug`` lines count from its start
        self._last_wait: float | None = None
        self._blocked = 0.0  # seconds

    def step(self, text: str) -> None:
        """Report a step that is done; for ``debug`` only."""
        if self.format == "debug":
            self._line(f"{self.since.elapsed() * 1000:6.0f} ms  {text}")

    def warning(self, text: str) -> None:
        """Report a problem that stops nothing."""
        self._tell(text, {"event": "warning", "text": text})

    def waiting(self, error: DetourError, deadline: Deadline) -> None:
        """Report a wait: the first failure, then a line every REPEAT seconds."""
        now = self.since.elapsed()
        if self._last_wait is not None and now - self._last_wait < REPEAT:
            return
        self._last_wait = now
        elapsed = deadline.elapsed()
        limit = "" if deadline.limit == float("inf") else f" of {deadline.limit:g}"
        facts: Facts = {"event": "waiting", "step": error.step, "reason": error.reason, "seconds": round(elapsed, 3)}
        self._tell(f"waiting: {error.reason} ({elapsed:.1f}{limit} s)", facts)

    def success(self, text: str, facts: Facts) -> None:
        """Report that the app starts now; ``facts`` are the keys of the JSON event."""
        self._tell(text, {"event": "ready", **facts})

    def failure(self, error: DetourError) -> None:
        """Report why the app does not start, and the remedy."""
        facts: Facts = {"event": "failed", "step": error.step, "reason": error.reason, "remedy": error.remedy}
        self._tell(f"{error.reason}; {error.remedy}" if error.remedy else error.reason, facts, quiet=True)

    def _tell(self, text: str, facts: Facts, *, quiet: bool = False) -> None:
        """Write the object or the line; ``quiet`` is whether MOCK_LOG=quiet shows it."""
        if self.format == "json":
            import json  # noqa: PLC0415  (costly to import; only MOCK_LOG=json needs it)

            # Strict readers reject half a surrogate pair, which is how Python represents a byte that is not UTF-8.
            strict = {name: readable(fact) if isinstance(fact, str) else fact for name, fact in facts.items()}
            self._write(json.dumps(strict))
        elif self.format != "quiet" or quiet:
            self._line(text)

    def _line(self, text: str) -> None:
        # Names and replies come from outside: none of them may start a new line or move the cursor.
        self._write("imds-detour: " + printable(text))

    def _write(self, line: str) -> None:
        data = line.encode("utf-8", "backslashreplace") + b"\n"
        with suppress(OSError):  # stderr is closed or full: the exit status still tells
            while not _sent(data) and self._blocked < MAX_BLOCKED:
                self._blocked += PAUSE
                time.sleep(PAUSE)


def _sent(data: bytes) -> bool:
    """Write to stderr unless it would block. Its file status flags are the app's too, so they stay."""
    mode, own = os.fstat(2).st_mode, 2
    if not stat.S_ISREG(mode) and not stat.S_ISSOCK(mode):
        with suppress(OSError):  # no /proc, or another user's stream: a write may block
            own = os.open("/proc/self/fd/2", OWN)
    try:
        if stat.S_ISSOCK(mode):
            with closing(socket.socket(fileno=os.dup(2))) as stream:
                stream.send(data, socket.MSG_DONTWAIT)
        else:
            os.write(own, data)
    except BlockingIOError:
        return False
    finally:
        if own != 2:
            os.close(own)
    return True
