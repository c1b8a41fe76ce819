"""This network namespace: whose it is, and which IP versions it has."""

from __future__ import annotations

import errno
import os

from imds_detour.lean import socket
from imds_detour.value import Value

INITIAL_NET = 0xEFFFFFF9
"""linux/nsfs.h: NET_NS_INIT_INO, the inode number of the first network namespace, fixed since Linux 6.18."""
INITIAL_PID = 0xEFFFFFFC
"""linux/proc_ns.h: PROC_PID_INIT_INO, that of the first PID namespace."""
NS_GET_USERNS = 0xB701
"""linux/nsfs.h: _IO(0xb7, 1), the user namespace that owns another namespace."""
SIOCGIFHWADDR = 0x8927
"""linux/sockios.h: a network device's hardware address."""
IFREQ = "16s24x"
"""struct ifreq (netdevice(7)): a name, and a union that holds, behind two bytes, at most 14 of the address."""
DEVICES = "/sys/class/net"


class NamespaceInfo(Value):
    """What tells the host's network namespace from a container's.

    Attributes:
        net: inode number of our network namespace.
        pid: inode number of our PID namespace.
        net_of_init: inode number of process 1's network namespace; 0 where it cannot be seen.
        hardware: whether a network device here has hardware behind it; a container's have not.
        fixed: whether the kernel gives the first network namespace a number that is known.

    """

    net: int
    pid: int
    net_of_init: int
    hardware: bool
    fixed: bool


def ip_versions() -> tuple[int, ...]:
    """Return the IP versions of this network namespace: 4, and 6 if a device has an address (proc(5), if_inet6).

    Where /proc is hidden and the kernel has IPv6, it counts as in use: closed rather than open.
    """
    try:
        with open("/proc/net/if_inet6", "rb") as addresses:
            return (4, 6) if addresses.read(1) else (4,)
    except OSError:
        pass
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).close()
    except OSError:
        return (4,)
    return (4, 6)


def is_host_netns(signs: NamespaceInfo | None = None) -> bool:
    """Whether our network namespace is that of the host; on kernels before 6.18 this is a well-founded guess."""
    signs = signs or look()
    if signs.fixed:
        return signs.net == INITIAL_NET
    return signs.hardware or (signs.pid == INITIAL_PID and signs.net == signs.net_of_init)


def is_another_users() -> bool:
    """Whether another user namespace than ours owns our network namespace: capabilities are worth nothing then."""
    import fcntl  # noqa: PLC0415  (the doctor alone asks this)

    try:
        with open("/proc/self/ns/net", "rb") as net:
            owner = fcntl.ioctl(net, NS_GET_USERNS)
    except OSError as error:
        return error.errno == errno.EPERM  # its owner is out of our sight (ioctl_ns(2)); other errors tell nothing
    try:
        return os.fstat(owner).st_ino != _inode("/proc/self/ns/user")
    finally:
        os.close(owner)


def look() -> NamespaceInfo:
    """Return the signs as the kernel shows them; what it hides counts for a container."""
    release = os.uname().release.split(".")
    version = tuple(int(part) for part in release[:2] if part.isdigit())
    return NamespaceInfo(
        net=_inode("/proc/self/ns/net"),
        pid=_inode("/proc/self/ns/pid"),
        net_of_init=_inode("/proc/1/ns/net"),
        hardware=_hardware(),
        fixed=version >= (6, 18),
    )


def _inode(path: str) -> int:
    try:
        return os.stat(path).st_ino
    except OSError:
        return 0


def _hardware() -> bool:
    try:
        return any(os.path.exists(f"{DEVICES}/{device}/device") and _is_here(device) for device in os.listdir(DEVICES))
    except OSError:
        return False


def _is_here(device: str) -> bool:
    """Whether a device of /sys is in our namespace: one that was mounted in another, as under unshare(1), shows its."""
    import fcntl  # noqa: PLC0415  (no container has such a device)
    import struct  # noqa: PLC0415  (the same)

    with open(f"{DEVICES}/{device}/address") as file:
        shown = bytes.fromhex(file.read().strip().replace(":", ""))
    asked = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        answer = fcntl.ioctl(asked.fileno(), SIOCGIFHWADDR, struct.pack(IFREQ, os.fsencode(device)))
    except OSError:
        return False
    finally:
        asked.close()
    return answer[18:32].startswith(shown[:14])
