"""One writer at a time: a lock among imds-detour's processes by network namespace, and iptables' own lock file."""

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
    """Both locks, held inside ``with``.

    Containers that share a network namespace share its tables, but no file. The name of an abstract Unix socket
    belongs to the network namespace, as the tables do, and is free again when its holder ends. The iptables commands
    know only a file, XTABLES_LOCKFILE or /run/xtables.lock; if there is none, no iptables has run, and none is made.
    """

    def __init__(self, timeout: float) -> None:
        """Wait ``timeout`` seconds at most for both.

        Entering raises DetourError when another writer holds a lock for longer, or there is no descriptor.
        """
        self._timeout = timeout
        self._socket: socket.socket | None = None
        self._file = -1

    def __enter__(self) -> None:
        deadline = time.monotonic() + self._timeout
        try:
            self._socket = name = socket.socket(socket.AF_UNIX)
        except OSError as error:
            raise DetourError("firewall", f"{CANNOT_BE_TAKEN}: {words(error)}") from None
        try:
            _take(lambda: name.bind("\0imds-detour-tables"), "another imds-detour", self._timeout, deadline)
            try:
                file = self._file = os.open(os.getenv("XTABLES_LOCKFILE", "/run/xtables.lock"), os.O_RDONLY)
            except OSError:
                return  # there is none, or it is another user's: then an iptables of that user cannot write here
            lock = fcntl.LOCK_EX | fcntl.LOCK_NB
            _take(lambda: fcntl.flock(file, lock), "an iptables command", self._timeout, deadline)
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_error: object) -> None:
        # close(2) frees the descriptor, and with it the lock, even if it fails.
        if self._file >= 0:
            with suppress(OSError):
                os.close(self._file)
            self._file = -1
        if self._socket is not None:
            with suppress(OSError):
                self._socket.close()


def _take(attempt: Callable[[], object], holder: str, timeout: float, deadline: float) -> None:
    while True:
        try:
            attempt()
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EWOULDBLOCK):
                raise DetourError("firewall", f"{CANNOT_BE_TAKEN}: {words(error)}") from None
            if time.monotonic() > deadline:
                raise DetourError(
                    "lock",
                    f"{holder} holds the firewall's lock, and has done so for {timeout:.3g} s",
                    "stop it and start again",
                ) from None
            time.sleep(PAUSE)
        else:
            return
