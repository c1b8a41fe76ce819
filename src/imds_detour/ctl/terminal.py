"""Tables, colours and a spinner on a terminal; the same text without them in a pipe.

A library for this would be in every user's image.
"""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import Enum
from itertools import cycle
from typing import Self, TextIO

from imds_detour.deadline import Deadline
from imds_detour.errors import DetourError
from imds_detour.log import Log
from imds_detour.text import printable
from imds_detour.value import Value

FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
PLAIN_FRAMES = "|/-\\"
TURN = 0.1
"""Seconds between two frames."""
START_OF_LINE = "\r\033[K"
"""Back to the line's start, and clear it (ECMA-48, EL)."""


class Style(Enum):
    """A text's style (ECMA-48, SGR)."""

    BOLD = "1"
    DIM = "2"
    RED = "31"
    GREEN = "32"
    YELLOW = "33"
    CYAN = "36"


class Terminal(Value):
    """A stream, and what it can show."""

    stream: TextIO  # stdout or stderr
    live: bool  # whether it is a terminal that can go back in a line
    colours: bool  # whether to use them: on a terminal, unless NO_COLOR (no-color.org) says not to

    @classmethod
    def of(cls, stream: TextIO) -> Self:
        """Return the terminal of a stream."""
        live = stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        return cls(stream, live, live and not os.environ.get("NO_COLOR"))

    @property
    def columns(self) -> int:
        """The width of the terminal, or 80."""
        with suppress(OSError):  # it is no terminal, or gone
            return os.get_terminal_size(self.stream.fileno()).columns or 80
        return 80

    def paint(self, text: str, *styles: Style) -> str:
        """Return a text with control characters escaped, in these styles if there are colours."""
        text = printable(text)
        return f"\033[{';'.join(style.value for style in styles)}m{text}\033[0m" if self.colours and styles else text

    def line(self, text: str = "", *styles: Style) -> None:
        """Write a line."""
        self.stream.write(self.paint(text, *styles) + "\n")

    def row(self, lead: str, width: int, text: str, *styles: Style) -> None:
        """Write a text after a painted lead of ``width`` columns. On a terminal, its next lines start below it."""
        lines = [text]
        if self.live:
            import textwrap  # noqa: PLC0415  (a health check has no rows)

            room = max(20, self.columns - width)
            lines = textwrap.wrap(printable(text), room, break_long_words=False, break_on_hyphens=False) or lines
        self.stream.write(lead + f"\n{' ' * width}".join(self.paint(line, *styles) for line in lines) + "\n")

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str | int]]) -> None:
        """Write a table: a head, then a line a row; numbers are right-aligned."""
        lines = [[printable(str(cell)) for cell in row] for row in (head, *rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        numbers = [all(isinstance(cell, int) for cell in column) for column in zip(*rows, strict=True)]
        for number, cells in enumerate(lines):
            placed = [
                cell.rjust(width) if right else cell.ljust(width)
                for cell, width, right in zip(cells, widths, numbers, strict=True)
            ]
            self.line("  ".join(placed).rstrip(), *([] if number else [Style.BOLD]))


class Spinner:
    """A line that shows a wait on a terminal; elsewhere it does nothing.

    A timer's signal redraws it, not a thread: helper processes are forked while it is shown.
    """

    def __init__(self, terminal: Terminal, text: str, *, wanted: bool = True) -> None:
        """Show ``text`` inside ``with``, if ``wanted`` and the terminal can show it."""
        self._terminal = terminal
        self.live = terminal.live and wanted
        unicode = (terminal.stream.encoding or "").lower() in ("utf-8", "utf8")
        self._frames = cycle(FRAMES if unicode else PLAIN_FRAMES)
        self._aside = False
        self.text = text

    def __enter__(self) -> Self:
        if self.live:
            self._draw()
            self._before = signal.signal(signal.SIGALRM, self._draw)
            signal.setitimer(signal.ITIMER_REAL, TURN, TURN)
        return self

    def __exit__(self, *_error: object) -> None:
        if self.live:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._before)
            self._write(START_OF_LINE)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Clear the line inside ``with``, so that other lines can be written."""
        self._aside = True
        if self.live:
            self._write(START_OF_LINE)
        yield
        self._aside = False

    def _draw(self, *_signal: object) -> None:
        if self._aside:
            return
        room = self._terminal.columns - 3
        text = printable(self.text)
        text = text if len(text) <= room else text[: room - 3] + "..."
        frame = self._terminal.paint(next(self._frames), Style.CYAN)
        self._write(f"{START_OF_LINE}{frame} {text}")

    def _write(self, text: str) -> None:
        # Not through the stream: the signal may interrupt a write to it, and streams are not reentrant.
        with suppress(OSError):
            os.write(self._terminal.stream.fileno(), text.encode(self._terminal.stream.encoding or "ascii", "replace"))


class Progress(Log):
    """A log that shows waits in a spinner, if there is a terminal; other lines are written as usual."""

    def __init__(self, format: str, spinner: Spinner) -> None:  # noqa: A002  (the field's word)
        super().__init__(format)
        self.spinner = spinner

    def warning(self, text: str) -> None:
        """Report a problem that stops nothing."""
        with self.spinner.aside():
            Log.warning(self, text)

    def waiting(self, error: DetourError, deadline: Deadline) -> None:
        """Report a wait, in the spinner's line if there is one."""
        if not self.spinner.live:
            Log.waiting(self, error, deadline)
            return
        limit = "" if deadline.limit == float("inf") else f" of {deadline.limit:g}"
        self.spinner.text = f"waiting: {error.reason} ({deadline.elapsed():.0f}{limit} s)"
