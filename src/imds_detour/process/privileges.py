"""Drop NET_ADMIN: the app cannot undo the redirect, and cannot get the capability back."""

from __future__ import annotations

import os

# By name, because `import ctypes` gives an empty package if its file cannot be read.
from ctypes import CDLL, c_uint32, c_void_p, get_errno, sizeof

from imds_detour.errors import DetourError
from imds_detour.system.capabilities import NET_ADMIN, sets

# linux/prctl.h
PR_CAPBSET_READ, PR_CAPBSET_DROP = 23, 24
PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS = 38, 39
PR_CAP_AMBIENT, PR_CAP_AMBIENT_LOWER, PR_CAP_AMBIENT_CLEAR_ALL = 47, 3, 4
SYS_SETUID = {("x86_64", 8): 105, ("aarch64", 8): 146}
"""System call numbers by machine and pointer size in bytes (asm/unistd_64.h, asm-generic/unistd.h)."""
CAPABILITY_VERSION_3 = 0x20080522
"""linux/capability.h: the header is this version and a pid; the data are the low words of the effective, permitted and
inheritable sets, then the high."""
NET_ADMIN_NUMBER = NET_ADMIN.bit_length() - 1


def drop_net_admin() -> bool:
    """Remove NET_ADMIN, and nothing else, from every capability set; DetourError if the app could still get it.

    For root, execve() fills the permitted set from the bounding set. A change of the bounding set needs SETPCAP.
    Without SETPCAP, no_new_privs has the same effect on NET_ADMIN. Return whether it is set: set-uid programs then give
    the app no privileges.
    """
    libc = CDLL(None, use_errno=True)
    libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_LOWER, NET_ADMIN_NUMBER, 0, 0)
    bounded = libc.prctl(PR_CAPBSET_DROP, NET_ADMIN_NUMBER, 0, 0, 0) == 0
    bounded = bounded or libc.prctl(PR_CAPBSET_READ, NET_ADMIN_NUMBER, 0, 0, 0) == 0
    _lower(libc, ~NET_ADMIN, 3)
    if not bounded and libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise DetourError("privileges", f"cannot drop NET_ADMIN: {os.strerror(get_errno())}", _REMEDY)
    bounding_counts = bounded or libc.prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1
    remaining = [name for name, mask in sets().items() if mask & NET_ADMIN and (bounding_counts or name != "CapBnd")]
    if remaining:
        raise DetourError("privileges", f"NET_ADMIN is still in {', '.join(remaining)} after dropping it", _REMEDY)
    return not bounded


def drop_own_capabilities() -> None:
    """Clear the effective, permitted and ambient sets. The others stay, so set-uid programs work as for any user."""
    libc = CDLL(None)
    libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    _lower(libc, 0, 2)


def can_become_root() -> bool:
    """Try to become root, by the system call: libc's setuid() changes all threads, and aborts if they differ."""
    if call := SYS_SETUID.get((os.uname().machine, sizeof(c_void_p))):
        return bool(CDLL(None).syscall(call, 0) == 0)
    try:
        os.setuid(0)
    except OSError:
        return False
    return True


def _lower(libc: CDLL, mask: int, count: int) -> None:
    """Keep only the capabilities in a mask in the first ``count`` sets. The caller checks the result."""
    header, data = (c_uint32 * 2)(CAPABILITY_VERSION_3), (c_uint32 * 6)()
    if libc.capget(header, data) == 0:
        for number in range(count):
            data[number] &= mask & 0xFFFFFFFF
            data[number + 3] &= mask >> 32 & 0xFFFFFFFF
        libc.capset(header, data)


_REMEDY = (
    "add SETPCAP (Compose `cap_add: [NET_ADMIN, SETPCAP]`), or MOCK_KEEP_NET_ADMIN=1 to let the app keep NET_ADMIN"
)
