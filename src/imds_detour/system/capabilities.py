"""Linux capabilities of this process, as the kernel shows them."""

from __future__ import annotations

from imds_detour.errors import DetourError, words

STATUS = "/proc/self/status"

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
        DetourError: when /proc is not there.

    """
    return sets()["CapEff"]


def within_reach(capability: int) -> bool:
    """Whether this process, or a program that it executes, can have the capability.

    Raises:
        DetourError: when /proc is not there.

    """
    return any(mask & capability for mask in sets().values())


def sets() -> dict[str, int]:
    """Return the five sets, CapInh, CapPrm, CapEff, CapBnd and CapAmb, as bit masks.

    Raises:
        DetourError: when /proc is not there.

    """
    try:
        with open(STATUS, "rb") as status:
            lines = status.read().decode("ascii", "replace").splitlines()
    except OSError as error:
        reason = f"cannot see this process's capabilities: {STATUS}: {words(error)}"
        raise DetourError("privileges", reason, "let the container have a /proc of its own") from None
    return {
        name: int(mask, 16) for name, _, mask in (line.partition(":\t") for line in lines) if name.startswith("Cap")
    }
