"""Become the app: honour stop signals until then, and leave it the process as we found it.

Imports next to nothing: the sooner it is there, the shorter the time in which PID 1 does not notice a stop signal.
"""

from __future__ import annotations

import errno
import os
import signal
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import FrameType

    from imds_detour.command import Command

STOPS = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTERM,
    *range(signal.SIGRTMIN, signal.SIGRTMAX + 1),
)
"""Signals that end a process by default and that people send. PID 1 without handlers does not even notice them."""

IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
"""What the interpreter sets to ignored at its start, and an app would inherit."""


def hold_closed_streams() -> None:
    """Keep 0, 1 and 2 from being taken by files of ours where they are closed; at exec they are closed again."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number, which is this one. O_PATH: reading and writing fail, as on a closed one.
            os.open("/", os.O_PATH | os.O_CLOEXEC)


def honour_stops() -> tuple[int, ...]:
    """End at once, with status 128+n, on a stop signal; return those that now do so. Signals ignored so far stay so."""
    handled = tuple(
        number for number in STOPS if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)
    )
    for number in handled:
        signal.signal(number, _stop)
    return handled


def _stop(number: int, _frame: FrameType | None) -> NoReturn:
    os._exit(128 + number)


def become(app: Command, handled: Sequence[int], changes: Mapping[bytes, bytes | None]) -> NoReturn:
    """Replace this process by the app. Nothing of ours is left: no handler, no mask, no descriptor, no variable.

    Args:
        app: what to run.
        handled: the signals that honour_stops() took.
        changes: the only variables that differ from those that we were started with; None is one that is not set.

    Raises:
        DetourError: status 126 or 127, when the kernel does not take the program.

    """
    blocked_by_us = set(STOPS) - signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    for number in (*handled, *IGNORED_BY_PYTHON):
        signal.signal(number, signal.SIG_DFL)
    for name, value in changes.items():
        if value is None:
            os.unsetenv(name)
        elif value != os.environb.get(name):
            os.putenv(name, value)
    _take_back_sigchld()
    # A stop that came before the block has been acted on by now; one that waits behind it is acted on here, as late as
    # can be: as PID 1, with the default action back, the next line would lose it. What had been blocked before us may
    # wait for the app.
    for number in signal.sigpending() & blocked_by_us & set(handled):
        _stop(number, None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, blocked_by_us)
    try:
        os.execv(app.program, app.argv)  # noqa: S606  (no shell is the point)
    except OSError as error:
        failure = error
    from imds_detour import command  # noqa: PLC0415  (it is loaded: app came from there)

    if failure.errno == errno.ENOEXEC and command.is_text(app.program):
        try:
            os.execv(b"/bin/sh", (b"/bin/sh", app.program, *app.argv[1:]))  # noqa: S606  (as execvp(3) does)
        except OSError as error:
            raise command.explain(app.program, error, by_shell=True) from None
    raise command.explain(app.program, failure)


def _take_back_sigchld() -> None:
    """Remove what the end of our helper leaves pending where SIGCHLD came blocked, unless the app has children."""
    if signal.SIGCHLD in signal.sigpending():
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            signal.sigtimedwait([signal.SIGCHLD], 0)
