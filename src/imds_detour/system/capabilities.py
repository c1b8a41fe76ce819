"""What the kernel lets this process do: its capabilities, and no firewall under an emulator."""

from __future__ import annotations

import os

from imds_detour.errors import DetourError, error_text

STATUS = "/proc/self/status"

# linux/capability.h
SETGID = 1 << 6
SETUID = 1 << 7
NET_ADMIN = 1 << 12
NET_RAW = 1 << 13

BUILD_FOR_MACHINE = "build or pull the image for this machine's architecture: the emulator (QEMU) has no firewall"


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


def no_net_admin(uid: int) -> DetourError:
    """Return the error for a process of this user without NET_ADMIN."""
    reason = "no NET_ADMIN capability"
    remedy = "add it: in Compose `cap_add: [NET_ADMIN]`, with docker run `--cap-add NET_ADMIN`"
    if uid != 0:  # container engines give added capabilities to root only
        reason += f" (uid {uid} is not root)"
        remedy = (
            "start as root with `cap_add: [NET_ADMIN]` (no `USER` in the Dockerfile, no `user:` in Compose) and let"
            f" MOCK_USER={uid} make the app that user; or use the sidecar, which needs no change to the app"
        )
    return DetourError("firewall", reason, remedy)


def is_emulated() -> bool:
    """Whether QEMU's user mode runs this process: it shows itself as the program in /proc/self/exe, and there alone."""
    try:
        return os.readlink("/proc/self/exe") != os.readlink("/proc/thread-self/exe")
    except OSError:
        return False
