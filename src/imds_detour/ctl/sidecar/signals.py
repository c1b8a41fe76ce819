"""Signals of the sidecar: they end its pauses, and SIGTERM interrupts its waits for an answer."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from imds_detour.lean import socket

STOPS = (signal.SIGTERM, signal.SIGINT)


class StoppedError(BaseException):
    """A stop interrupted a wait. Not an Exception: dnspython catches those, and repeats its query."""


class Signals:
    """The signals received so far."""

    def __init__(self, reader: int) -> None:
        self.stopped = False  # whether one of STOPS was received
        self._reader = reader
        self._refresh = False
        self._interruptible = False

    def wait(self, seconds: float, events: socket.socket | None = None) -> bool:
        """Wait for a signal or an event, ``seconds`` at most; return whether a signal asks for a refresh (SIGHUP)."""
        if not self.stopped:
            select.select([self._reader, *([events.fileno()] if events else [])], [], [], seconds)
        with suppress(BlockingIOError):
            os.read(self._reader, 4096)
        refresh, self._refresh = self._refresh, False
        return refresh

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let SIGTERM interrupt this block with StoppedError. Use it around network waits, never around writes."""
        before = self._interruptible
        try:
            self._interruptible = True
            self._check()
            yield
        finally:
            self._interruptible = before

    @contextmanager
    def uninterruptible(self) -> Iterator[None]:
        """Let no signal interrupt this block, inside an interruptible one too. A stop takes effect at its end."""
        before, self._interruptible = self._interruptible, False
        try:
            yield
        finally:
            self._interruptible = before
        self._check()

    def receive(self, number: int, _frame: object) -> None:
        """Note a signal; this is the handler."""
        if number == signal.SIGHUP:
            self._refresh = True
        else:
            self.stopped = True
            self._check()

    def _check(self) -> None:
        if self.stopped and self._interruptible:
            self._interruptible = False  # only once: the undo that follows is not interrupted
            raise StoppedError


def install_signal_handlers() -> Signals:
    """Receive STOPS and SIGHUP from now on."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signals = Signals(reader)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (*STOPS, signal.SIGHUP):
        signal.signal(number, signals.receive)
    return signals
