"""One writer at a time: among ourselves by network namespace, and against iptables by its own lock file."""

from __future__ import annotations

import _socket as socket  # without the enums and selectors of socket, which take 3 ms to load
import fcntl
import os
import time
from contextlib import contextmanager

from imds_detour.errors import DetourError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PAUSE = 0.002
"""Seconds between two attempts."""


@contextmanager
def tables_lock(patience: float) -> Iterator[None]:
    """Hold both locks.

    Containers that share a network namespace share its tables, and no file. An abstract Unix socket's name belongs to
    the network namespace, exactly as the tables do, and it goes away with its holder. The iptables commands know
    only a file, XTABLES_LOCKFILE or /run/xtables.lock; where there is none, no iptables has run here yet, and we
    leave none behind.

    Raises:
        DetourError: when another writer holds a lock for longer than ``patience`` seconds, which are for both.

    """
    give_up = time.monotonic() + patience
    ours = socket.socket(socket.AF_UNIX)
    theirs = -1
    try:
        _take(lambda: ours.bind("\0imds-detour-tables"), "another imds-detour", patience, give_up)
        try:
            theirs = os.open(os.getenv("XTABLES_LOCKFILE", "/run/xtables.lock"), os.O_RDONLY)
        except OSError:
            pass  # no such file, or not for us to open: then an iptables that runs as somebody else cannot write here
        else:
            _take(lambda: fcntl.flock(theirs, fcntl.LOCK_EX | fcntl.LOCK_NB), "an iptables command", patience, give_up)
        yield
    finally:
        if theirs >= 0:
            os.close(theirs)
        ours.close()


def _take(attempt: Callable[[], object], holder: str, patience: float, give_up: float) -> None:
    while True:
        try:
            attempt()
        except OSError as error:
            if time.monotonic() > give_up:
                raise DetourError(
                    "firewall",
                    f"{holder} holds the firewall's lock for {patience:.3g} s ({error})",
                    "stop it and start again",
                ) from None
            time.sleep(PAUSE)
        else:
            return
