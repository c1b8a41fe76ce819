"""Read configuration files without a hang: a FIFO, a device or an endless file may be in their place."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

MAX_SIZE = 16_777_216
"""Bytes of a file that is read as a whole. A hosts file that blocks advertisers has a few million."""
LIBCS = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf")
"""The files that libc reads when it looks a name up, without a bound on time or size."""
NULL = os.makedev(1, 3)
"""/dev/null (Linux Documentation/admin-guide/devices.txt), which some containers have in place of a file."""


def read(path: str | bytes, start: int = 0) -> bytes:
    """Return the content of a file, or its first ``start`` bytes. OSError if it is not regular, or too large."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    with open(path, "rb", opener=lambda path, _: os.open(path, flags)) as file:
        if not _ends(os.fstat(file.fileno())):
            raise OSError(errno.EINVAL, "it is not a regular file")
        content = file.read(start or MAX_SIZE + 1)
    if len(content) > MAX_SIZE:
        raise OSError(errno.EFBIG, f"it is larger than {MAX_SIZE} bytes")
    return content


def is_libc_safe() -> bool:
    """Whether libc can read its files to their end."""
    for path in LIBCS:
        with suppress(OSError):  # libc fails at once too
            status = os.stat(path)
            if not _ends(status) or status.st_size > MAX_SIZE:
                return False
    return True


def _ends(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) or status.st_rdev == NULL
