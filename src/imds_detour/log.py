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

REPEAT, MAX_REPEAT = 5.0, 300.0
"""Seconds from a line about a wait to the next with the same reason. They double with each."""
NEW_REASON = 1.0
"""Seconds from a line about a wait to the next with a reason that was not told before."""
MAX_KNOWN = 100
"""Texts to remember, so that a line that repeats is counted and not written."""
MAX_BLOCKED = 1.0
"""Seconds to wait in all for a stderr that takes no line, as a full pipe that no process reads. Lines are then lost."""
PAUSE = 0.01  # seconds between two attempts
OWN = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class Log:
    """Writes lines in the format that MOCK_LOG asks for: ``text``, ``json``, ``quiet`` or ``debug``."""

    __slots__ = ("_attempts", "_blocked", "_last_wait", "_pause", "_steps", "format", "since")

    def __init__(self, format: str, clock: Callable[[], float] = time.monotonic) -> None:  # noqa: A002  (the field's word)
        self.format = format
        self.since = Deadline(float("inf"), clock)  # ``debug`` lines count from its start
        self._last_wait, self._pause = float("-inf"), REPEAT / 2
        self._attempts: dict[str, int] = {}  # failed ones by their reason, from its first line on
        self._steps: dict[str, int] = {}  # the steps that are written already, and how often they came again
        self._blocked = 0.0  # seconds

    def step(self, text: str) -> None:
        """Report a step that is done; for ``debug`` only. Repeats are counted, and told before the next line."""
        if self.format != "debug":
            return
        if text in self._steps:
            self._steps[text] += 1
            return
        self._tell_repeats()
        self._steps[text] = 0
        self._step(text)

    def _step(self, text: str) -> None:
        self._line(f"{self.since.elapsed() * 1000:6.0f} ms  {text}")

    def _tell_repeats(self) -> None:
        """Write how often steps came again since the last line."""
        repeats = [(count, text) for text, count in self._steps.items() if count]
        if repeats:
            times = ((f"{count} times" if count > 1 else "once", text) for count, text in repeats)
            self._step("; ".join(f"{count} more: {text}" for count, text in times))
        self._steps = dict.fromkeys(self._steps, 0) if len(self._steps) < MAX_KNOWN else {}

    def warning(self, text: str) -> None:
        """Report a problem that stops nothing."""
        self._tell(text, {"event": "warning", "text": text})

    def waiting(self, error: DetourError, deadline: Deadline) -> None:
        """Report a wait: each new reason soon, and the same with the number of attempts ever less often."""
        now, new = self.since.elapsed(), error.reason not in self._attempts
        self._attempts[error.reason] = attempts = self._attempts.get(error.reason, 0) + 1
        if now < self._last_wait + (NEW_REASON if new else self._pause):
            if new:
                del self._attempts[error.reason]  # it is still new for the next time
            return
        self._last_wait, self._pause = now, REPEAT if new else min(self._pause * 2, MAX_REPEAT)
        elapsed = deadline.elapsed()
        limit = "" if deadline.limit == float("inf") else f" of {deadline.limit:g}"
        count = f", {attempts} attempts" if attempts > 1 else ""
        facts: Facts = {"event": "waiting", "step": error.step, "reason": error.reason, "seconds": round(elapsed, 3)}
        self._tell(f"waiting: {error.reason} ({elapsed:.1f}{limit} s{count})", facts)

    def success(self, text: str, facts: Facts) -> None:
        """Report that the app starts now; ``facts`` are the keys of the JSON event."""
        self._tell(text, {"event": "ready", **facts})

    def failure(self, error: DetourError) -> None:
        """Report why the app does not start, and the remedy."""
        facts: Facts = {"event": "failed", "step": error.step, "reason": error.reason, "remedy": error.remedy}
        self._tell(f"{error.reason}; {error.remedy}" if error.remedy else error.reason, facts, quiet=True)

    def _tell(self, text: str, facts: Facts, *, quiet: bool = False) -> None:
        """Write the object or the line; ``quiet`` is whether MOCK_LOG=quiet shows it."""
        if any(self._steps.values()):
            self._tell_repeats()
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
