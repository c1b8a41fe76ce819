"""One writer at a time: among ourselves by network namespace, and against iptables by its own lock file."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from contextlib import suppress

from imds_detour.errors import DetourError, words
from imds_detour.lean import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

PAUSE = 0.002
"""Seconds between two attempts."""
CANNOT_BE_TAKEN = "the firewall's lock cannot be taken"


class TablesLock:
    """Both locks, held while this is entered.

    Containers that share a network namespace share its tables, and no file. An abstract Unix socket's name belongs to
    the network namespace, exactly as the tables do, and it goes away with its holder. The iptables commands know
    only a file, XTABLES_LOCKFILE or /run/xtables.lock; where there is none, no iptables has run here yet, and we
    leave none behind.
    """

    def __init__(self, timeout: float) -> None:
        """Take ``timeout`` seconds at most, for both.

        Entering raises DetourError when another writer holds a lock for longer, or there is no descriptor to be had.
        """
        self._timeout = timeout
        self._ours: socket.socket | None = None
        self._theirs = -1

    def __enter__(self) -> None:
        give_up = time.monotonic() + self._timeout
        try:
            self._ours = ours = socket.socket(socket.AF_UNIX)
        except OSError as error:
            raise DetourError("firewall", f"{CANNOT_BE_TAKEN}: {words(error)}") from None
        try:
            _take(lambda: ours.bind("\0imds-detour-tables"), "another imds-detour", self._timeout, give_up)
            try:
                file = self._theirs = os.open(os.getenv("XTABLES_LOCKFILE", "/run/xtables.lock"), os.O_RDONLY)
            except OSError:
                return  # no such file, or not for us to open: then an iptables that runs as somebody else cannot write
            lock = fcntl.LOCK_EX | fcntl.LOCK_NB
            _take(lambda: fcntl.flock(file, lock), "an iptables command", self._timeout, give_up)
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_error: object) -> None:
        # Whatever close(2) says, the descriptor is gone and the lock with it; what has been written is to be heard of.
        if self._theirs >= 0:
            with suppress(OSError):
                os.close(self._theirs)
            self._theirs = -1
        if self._ours is not None:
            with suppress(OSError):
                self._ours.close()


def _take(attempt: Callable[[], object], holder: str, timeout: float, give_up: float) -> None:
    while True:
        try:
            attempt()
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EWOULDBLOCK):
                raise DetourError("firewall", f"{CANNOT_BE_TAKEN}: {words(error)}") from None
            if time.monotonic() > give_up:
                raise DetourError(
                    "lock",
                    f"{holder} holds the firewall's lock, and has done so for {timeout:.3g} s",
                    "stop it and start again",
                ) from None
            time.sleep(PAUSE)
        else:
            return
