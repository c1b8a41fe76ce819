"""The locks of a network namespace: imds-detour's own, and the lock file of iptables."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import time
from contextlib import closing, contextmanager, suppress

from imds_detour.errors import DetourError, error_text
from imds_detour.lean import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

LOCK_TIMEOUT = 4.0
"""Seconds to wait for other writers of the firewall, if the deadline leaves as much. An iptables command takes some
milliseconds."""
PAUSE = 0.002
"""Seconds between two attempts."""
LEGACY_TABLES, NFTABLES, SETUP = "imds-detour-tables", "imds-detour-nftables", "imds-detour-setup"
"""Names of locks: for a change of a legacy table, for one of nftables, and for redirects until they are verified or
undone."""
BACKLOG = 4096
"""Other starts that ask who holds a name; the kernel's limit is net.core.somaxconn."""
ASKING = 0.2
"""Seconds between two questions who holds a name."""
LATE = 0.1
"""Seconds within which the holder of a name listens, if it is an imds-detour."""
UCRED = "=3i"
"""struct ucred (unix(7)): process, user, group."""
IPTABLES_LOCK = "/run/xtables.lock"

_skipped: set[str] = set()


@contextmanager
def namespace_lock(name: str, timeout: float) -> Iterator[None]:
    """Hold a lock of this network namespace; DetourError without a free file descriptor.

    It is the name of an abstract Unix socket, which belongs to the network namespace, so that containers that share the
    namespace share the lock without sharing a file. The kernel frees it when the holder ends.

    It orders honest starts, and no safety depends on it, since every process can bind such a name: a holder that is
    neither root nor this user is ignored, and so is one that keeps it for longer than ``timeout`` seconds.
    """
    try:
        own = socket.socket(socket.AF_UNIX)
        if name not in _skipped and not _bind(own, f"\0{name}", timeout):
            _skipped.add(name)  # do not wait for it again
    except OSError as error:
        raise DetourError("firewall", f"the firewall's lock cannot be taken: {error_text(error)}") from None
    try:
        yield
    finally:
        with suppress(OSError):  # close(2) frees the name even when it fails, and what was done under the lock is done
            own.close()


@contextmanager
def legacy_tables_lock(timeout: float) -> Iterator[None]:
    """Hold imds-detour's lock for legacy tables, and the iptables commands' lock file; DetourError if one keeps it."""
    with namespace_lock(LEGACY_TABLES, timeout):
        file = _open(os.getenv("XTABLES_LOCKFILE", IPTABLES_LOCK))  # -1 if there is none
        try:
            deadline = time.monotonic() + timeout
            while file >= 0 and not _lock(file):
                if time.monotonic() > deadline:
                    reason = f"an iptables command holds the firewall's lock (waited {timeout:.3g} s)"
                    raise DetourError("lock", reason, "stop it and start again")
                time.sleep(PAUSE)
            yield
        finally:
            if file >= 0:
                os.close(file)


def _bind(own: socket.socket, name: str, timeout: float) -> bool:
    """Bind a name; return False if its holder is to be ignored, or keeps it for ``timeout`` seconds."""
    start = now = time.monotonic()
    answered, asked = False, 0.0
    while now <= start + timeout:
        try:
            own.bind(name)
            own.listen(BACKLOG)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            return True
        if now >= asked:
            holder = _holder(name)
            answered = answered or holder is not None
            if holder not in (None, 0, os.geteuid()) or (not answered and now - start > LATE):
                return False
            asked = now + (ASKING if answered else 0)
        time.sleep(PAUSE)
        now = time.monotonic()
    return False


def _holder(name: str) -> int | None:
    """Return the user who holds a name, 0 if that is unknown, None if the holder is not an imds-detour or has ended."""
    with closing(socket.socket(socket.AF_UNIX)) as asking:
        try:
            asking.setblocking(False)
            asking.connect(name)
            return int(struct.unpack(UCRED, asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1])
        except BlockingIOError:
            return 0  # so many ask that the backlog is full
        except OSError:
            return None


def _open(path: str) -> int:
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:  # no iptables command has run, or only one of another user, which cannot change these tables
        return -1
    if not stat.S_ISREG(os.fstat(file).st_mode):  # a FIFO, for example
        os.close(file)
        return -1
    return file


def _lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise DetourError("firewall", f"the firewall's lock cannot be taken: {error_text(error)}") from None
    return True
