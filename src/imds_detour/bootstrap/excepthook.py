"""What nobody has caught ends in one line and status 125: a module that cannot be loaded, no memory, a fault of ours.

Imports next to nothing: it is to be in place before anything else can fail.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # importing typing for it would cost as much as all of the above
if TYPE_CHECKING:
    from types import TracebackType
    from typing import NoReturn

STATUS = 125
"""errors.STATUS_WRAPPER_FAILED; that module may be the one that cannot be loaded."""
INTERRUPTED = 130
"""128 + SIGINT (signal(7)): a stop that comes before handover.py hears stops, which Python makes an exception of."""


def no_tracebacks() -> None:
    """From here on, what would be a traceback is a line on stderr. A traceback's status of 1 could be the app's."""
    sys.excepthook = _end


def _end(kind: type[BaseException], error: BaseException, _trace: TracebackType | None) -> NoReturn:
    if kind is KeyboardInterrupt:
        os._exit(INTERRUPTED)
    text = "".join(sign if sign.isprintable() else "?" for sign in f"{kind.__name__}: {error}")
    line = f"imds-detour: cannot start: {text}; is it installed whole, and are memory and open files enough?\n"
    try:
        os.write(2, line.encode("utf-8", "backslashreplace"))
    finally:
        os._exit(STATUS)
