"""What people see: tables, colours and a progress line on a terminal, and the same words, plain, in a pipe.

A library for this would land in every user's image; what is needed of one is a hundred lines.
"""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Self, TextIO

from imds_detour.log import Log
from imds_detour.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import FrameType, TracebackType

    from imds_detour.deadline import Deadline
    from imds_detour.errors import DetourError

FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
PLAIN_FRAMES = "|/-\\"
TURN = 0.1
"""Seconds between two frames."""
START_OF_LINE = "\r\033[K"
"""Back to the line's start, and clear it (ECMA-48, EL)."""


class Style(Enum):
    """How a text stands out (ECMA-48, SGR)."""

    BOLD = "1"
    DIM = "2"
    RED = "31"
    GREEN = "32"
    YELLOW = "33"
    CYAN = "36"


@dataclass(frozen=True, slots=True)
class Terminal:
    """Where to write, and what the place can show.

    Attributes:
        stream: stdout or stderr.
        live: whether it is a terminal that can go back in a line.
        colours: whether to use them: on a terminal, unless NO_COLOR (no-color.org) says not to.

    """

    stream: TextIO
    live: bool
    colours: bool

    @classmethod
    def of(cls, stream: TextIO, environ: Mapping[str, str] = os.environ) -> Self:
        """Find out what a stream can show."""
        live = stream.isatty() and environ.get("TERM", "dumb") != "dumb"
        return cls(stream, live, live and not environ.get("NO_COLOR"))

    def paint(self, text: str, *styles: Style) -> str:
        """Return a text with control characters escaped, in these styles where there are colours."""
        text = printable(text)
        return f"\033[{';'.join(style.value for style in styles)}m{text}\033[0m" if self.colours and styles else text

    def line(self, text: str = "", *styles: Style) -> None:
        """Write a line."""
        self.stream.write(self.paint(text, *styles) + "\n")

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str | int]]) -> None:
        """Write a table: a head, then a line a row; numbers to the right."""
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
    """A line that turns while something is waited for; nothing at all where there is no terminal.

    A timer's signal turns it, not a thread: the firewall's helper processes are forked while it turns.
    """

    def __init__(self, terminal: Terminal, text: str, *, wanted: bool = True) -> None:
        """Say what is waited for; it turns inside ``with``, where it is ``wanted`` and the terminal can show it."""
        self._terminal = terminal
        self.live = terminal.live and wanted
        self._frames = FRAMES if (terminal.stream.encoding or "").lower() in ("utf-8", "utf8") else PLAIN_FRAMES
        self._turns = 0
        self._width = 80
        self._aside = False
        self.text = text

    def __enter__(self) -> Self:
        if self.live:
            self._draw()
            self._before = signal.signal(signal.SIGALRM, self._turn)
            signal.setitimer(signal.ITIMER_REAL, TURN, TURN)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._before)
            self._clear()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Leave an empty line for something else to be written in; then it turns on below that."""
        self._aside = True
        self._clear()
        yield
        self._aside = False

    def _clear(self) -> None:
        if self.live:
            self._write(START_OF_LINE)

    def _turn(self, _number: int, _frame: FrameType | None) -> None:
        if not self._aside:
            self._turns += 1
            self._draw()

    def _draw(self) -> None:
        with suppress(OSError):  # the terminal is gone: nobody sees it turn
            self._width = os.get_terminal_size(self._terminal.stream.fileno()).columns or self._width
        room = self._width - 3
        text = printable(self.text)
        text = text if len(text) <= room else text[: room - 3] + "..."
        frame = self._terminal.paint(self._frames[self._turns % len(self._frames)], Style.CYAN)
        self._write(f"{START_OF_LINE}{frame} {text}")

    def _write(self, text: str) -> None:
        # Not through the stream: the signal may have come while it writes, and streams do not like to be re-entered.
        with suppress(OSError):
            os.write(self._terminal.stream.fileno(), text.encode(self._terminal.stream.encoding or "ascii", "replace"))


class Progress(Log):
    """A report whose waiting shows in a spinner where there is one to see; its other lines come as ever."""

    def __init__(self, format: str, spinner: Spinner) -> None:  # noqa: A002  (the field's word)
        super().__init__(format)
        self.spinner = spinner

    def warning(self, text: str) -> None:
        """Say what the user should know though it stops nothing."""
        with self.spinner.aside():
            Log.warning(self, text)

    def waiting(self, error: DetourError, deadline: Deadline) -> None:
        """Say what is being waited for, in the spinner's line where one turns."""
        if not self.spinner.live:
            Log.waiting(self, error, deadline)
            return
        limit = "" if deadline.limit == float("inf") else f" of {deadline.limit:g}"
        self.spinner.text = f"waiting: {error.reason} ({deadline.elapsed():.0f}{limit} s)"
