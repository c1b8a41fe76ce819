"""Turn an uncaught exception into one line and status 125: a module that cannot be loaded, no memory, a bug.

Imports next to nothing: it must be installed before anything else can fail.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import NoReturn

STATUS = 125
"""errors.STATUS_WRAPPER_FAILED; that module may be the one that cannot be loaded."""
INTERRUPTED = 130
"""128 + SIGINT (signal(7)): Python raises KeyboardInterrupt until handover.py sets its handlers."""


def install_excepthook() -> None:
    """Print one line instead of a traceback, and exit with 125: a traceback's status of 1 could be the app's."""
    sys.excepthook = _exit


def _exit(kind: type[BaseException], error: BaseException, _trace: TracebackType | None) -> NoReturn:
    if kind is KeyboardInterrupt:
        os._exit(INTERRUPTED)
    text = "".join(sign if sign.isprintable() else "?" for sign in f"{kind.__name__}: {error}")
    line = f"imds-detour: cannot start: {text}; is it installed whole, and are memory and open files enough?\n"
    try:
        from imds_detour.lean import signal  # noqa: PLC0415  (only a failure needs it)

        signal.signal(signal.SIGALRM, lambda *_: os._exit(STATUS))  # stderr may be a pipe that no process reads
        signal.alarm(1)
        os.write(2, line.encode("utf-8", "backslashreplace"))
    finally:
        os._exit(STATUS)
