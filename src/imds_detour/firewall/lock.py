"""The locks of a network namespace's tables: imds-detour's own, and the lock file of iptables."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from contextlib import suppress

from imds_detour.errors import DetourError, error_text
from imds_detour.lean import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

PAUSE = 0.002
"""Seconds between two attempts."""
CANNOT_BE_TAKEN = "the firewall's lock cannot be taken"


class TablesLock:
    """Both locks, held inside ``with``.

    imds-detour's lock is the name of an abstract Unix socket. It belongs to the network namespace, as the tables do,
    so that containers that share the namespace share the lock without sharing a file. The kernel frees it when the
    holder ends. The iptables commands lock a file: XTABLES_LOCKFILE or /run/xtables.lock. It is not created here.

    Entering raises DetourError when another writer holds a lock for too long, or there is no file descriptor left.
    """

    def __init__(self, timeout: float) -> None:
        """Prepare to wait ``timeout`` seconds at most for both."""
        self._timeout = timeout
        self._socket: socket.socket | None = None
        self._file = -1

    def __enter__(self) -> None:
        deadline = time.monotonic() + self._timeout
        try:
            self._socket = lock = socket.socket(socket.AF_UNIX)
        except OSError as error:
            raise DetourError("firewall", f"{CANNOT_BE_TAKEN}: {error_text(error)}") from None
        try:
            _take(lambda: lock.bind("\0imds-detour-tables"), "another imds-detour", self._timeout, deadline)
            try:
                file = self._file = os.open(os.getenv("XTABLES_LOCKFILE", "/run/xtables.lock"), os.O_RDONLY)
            except OSError:
                return  # no iptables command has run, or only one of another user, which cannot change these tables
            _take(
                lambda: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB), "an iptables command", self._timeout, deadline
            )
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_error: object) -> None:
        # close(2) frees the descriptor and its lock even when it fails.
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
                raise DetourError("firewall", f"{CANNOT_BE_TAKEN}: {error_text(error)}") from None
            if time.monotonic() > deadline:
                raise DetourError(
                    "lock",
                    f"{holder} holds the firewall's lock (waited {timeout:.3g} s)",
                    "stop it and start again",
                ) from None
            time.sleep(PAUSE)
        else:
            return
