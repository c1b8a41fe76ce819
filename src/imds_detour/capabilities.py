"""Linux capabilities of this process, as the kernel shows them."""

from __future__ import annotations

SETGID = 1 << 6
"""linux/capability.h: CAP_SETGID."""
SETUID = 1 << 7
"""linux/capability.h: CAP_SETUID."""
NET_ADMIN = 1 << 12
"""linux/capability.h: CAP_NET_ADMIN."""
NET_RAW = 1 << 13
"""linux/capability.h: CAP_NET_RAW."""


def effective() -> int:
    """Return the effective set as a bit mask (proc(5), CapEff).

    Raises:
        OSError: when /proc is not there.

    """
    return sets()["CapEff"]


def within_reach(capability: int) -> bool:
    """Whether this process, or a program that it executes, can have the capability.

    Raises:
        OSError: when /proc is not there.

    """
    return any(mask & capability for mask in sets().values())


def sets() -> dict[str, int]:
    """Return the five sets, CapInh, CapPrm, CapEff, CapBnd and CapAmb, as bit masks.

    Raises:
        OSError: when /proc is not there.

    """
    with open("/proc/self/status", "rb") as status:
        lines = status.read().decode("ascii", "replace").splitlines()
    return {
        name: int(mask, 16) for name, _, mask in (line.partition(":\t") for line in lines) if name.startswith("Cap")
    }
