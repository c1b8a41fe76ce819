"""Threads that no signal goes to: only the main thread can act on a stop."""

from __future__ import annotations

import _thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
else:
    import _signal as signal  # as in handover.py


def start(function: Callable[..., object], *arguments: object) -> None:
    """Start one. It dies with the process: exec and exit do not wait for it.

    Raises:
        RuntimeError: when there is none to be had (a limit on processes).

    """
    every = signal.valid_signals()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, every)
    try:
        _thread.start_new_thread(function, arguments)
    finally:
        # Not by setting the mask that was: what libc hides from us (signals 32 and 33) would not be in it.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, every - before)
