"""The C halves of socket, signal and pickle, and threads without the module threading.

The full modules build enums and load selectors, which every start would pay for (bench/NOTES.md). The C halves have
all that a start needs: plain numbers instead of enums. Other modules import them from here; a lint rule sees to it.
"""

from __future__ import annotations

import _socket as socket
import _thread

TYPE_CHECKING = False  # likewise: the module typing is costly to import
if TYPE_CHECKING:
    import pickle
    import signal
    from collections.abc import Callable
    from types import ModuleType
else:
    import _signal as signal

    def __getattr__(name: str) -> ModuleType:
        """Load pickle when it is imported from here: only the helpers of legacy iptables need it."""
        if name != "pickle":
            raise AttributeError(name)
        import _pickle  # noqa: PLC0415  (see above)

        return _pickle


__all__ = ["Lock", "held_lock", "pickle", "signal", "socket", "start_thread"]

Lock = _thread.LockType


def start_thread(function: Callable[..., object], *arguments: object) -> None:
    """Start a thread without signals: only the main thread acts on a stop. RuntimeError at a limit on processes."""
    every = signal.valid_signals()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, every)
    try:
        _thread.start_new_thread(function, arguments)
    finally:
        # Not by restoring the old mask: it would lack the signals that libc hides from us (32 and 33).
        signal.pthread_sigmask(signal.SIG_UNBLOCK, every - before)


def held_lock() -> Lock:
    """Return a lock that is held already."""
    lock = _thread.allocate_lock()
    lock.acquire()
    return lock
