"""What the kernel lets this process do: its capabilities."""

from __future__ import annotations

from imds_detour.errors import DetourError, error_text

STATUS = "/proc/self/status"

# linux/capability.h
SETGID = 1 << 6
SETUID = 1 << 7
NET_ADMIN = 1 << 12
NET_RAW = 1 << 13


def effective() -> int:
    """Return the effective set as a bit mask; DetourError if /proc is hidden."""
    return sets()["CapEff"]


def within_reach(capability: int) -> bool:
    """Whether this process or a program that it executes can get a capability; DetourError if /proc is hidden."""
    return any(mask & capability for mask in sets().values())


def sets() -> dict[str, int]:
    """Return CapInh, CapPrm, CapEff, CapBnd and CapAmb (proc(5)) as bit masks; DetourError if /proc is hidden."""
    try:
        with open(STATUS, "rb") as status:
            lines = status.read().decode("ascii", "replace").splitlines()
    except OSError as error:
        reason = f"cannot see this process's capabilities: {STATUS}: {error_text(error)}"
        raise DetourError("privileges", reason, "give the container its own /proc") from None
    shown = {name: mask for name, _, mask in (line.partition(":\t") for line in lines)}
    names = "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"  # gVisor shows no ambient set
    return {name: int(shown.get(name, "0"), 16) for name in names}
