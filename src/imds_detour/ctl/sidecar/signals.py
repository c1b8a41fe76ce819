"""Signals: something to wait for, and what ends a wait for somebody else's answer."""

from __future__ import annotations

import os
import select
import signal
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

STOPS = (signal.SIGTERM, signal.SIGINT)


class StoppedError(BaseException):
    """A stop came while somebody's answer was waited for. No Exception: dnspython catches those, and asks on."""


class Wake:
    """The signals that came so far; none comes too early or is lost.

    Attributes:
        stopped: whether one of STOPS came.

    """

    def __init__(self) -> None:
        """Listen from here on."""
        self.stopped = False
        self._again = False
        self._breakable = False
        self._reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in (*STOPS, signal.SIGHUP):
            signal.signal(number, self._note)

    def wait(self, seconds: float) -> bool:
        """Wait for a signal, at most so long; return whether it says to look again."""
        if not self.stopped:
            select.select([self._reader], [], [], seconds)
        with suppress(BlockingIOError):
            os.read(self._reader, 4096)
        again, self._again = self._again, False
        return again

    @contextmanager
    def breakable(self) -> Iterator[None]:
        """Let a stop break off what is done in here, at any point of it: questions to others, nothing that is written.

        Raises:
            StoppedError: when one comes, or has come.

        """
        before = self._breakable
        try:
            self._breakable = True
            self._obey()
            yield
        finally:
            self._breakable = before

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Let no stop break off what is done in here, though it be a part of what can be broken off.

        Raises:
            StoppedError: at the end, when one came meanwhile.

        """
        before, self._breakable = self._breakable, False
        try:
            yield
        finally:
            self._breakable = before
        self._obey()

    def _note(self, number: int, _frame: object) -> None:
        if number == signal.SIGHUP:
            self._again = True
        else:
            self.stopped = True
            self._obey()

    def _obey(self) -> None:
        if self.stopped and self._breakable:
            self._breakable = False  # once: what is undone on the way out is undone whole
            raise StoppedError
