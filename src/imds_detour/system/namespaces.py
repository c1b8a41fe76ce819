"""This network namespace: whether it is the host's, and its IP versions."""

from __future__ import annotations

import os
from contextlib import closing

from imds_detour.lean import socket
from imds_detour.value import Value

INITIAL_NET = 0xEFFFFFF9
"""linux/nsfs.h: NET_NS_INIT_INO, the inode number of the host's network namespace since Linux 6.18."""
INITIAL_PID = 0xEFFFFFFC
"""linux/proc_ns.h: PROC_PID_INIT_INO, the inode number of the host's PID namespace."""
SIOCGIFHWADDR = 0x8927
"""linux/sockios.h: a network device's hardware address."""
IFREQ = "16s24x"
"""struct ifreq (netdevice(7)): a name, and a union of two bytes and at most 14 of the address."""
DEVICES = "/sys/class/net"


class NamespaceInfo(Value):
    """The signs of the host's network namespace."""

    net: int  # inode number of this network namespace; 0 if hidden
    pid: int  # inode number of this PID namespace; 0 if hidden
    net_of_init: int  # inode number of process 1's network namespace; 0 if hidden
    hardware: bool  # whether it has a hardware network device, which a container has not
    fixed: bool  # whether the kernel gives the host's network namespace the number INITIAL_NET


def ip_versions() -> tuple[int, ...]:
    """Return the IP versions of this network namespace: 4, and 6 if a device has an address (proc(5), if_inet6)."""
    try:
        with open("/proc/net/if_inet6", "rb") as addresses:
            return (4, 6) if addresses.read(1) else (4,)
    except OSError:
        return kernel_versions()  # /proc is hidden, and the guard must cover IPv6


def kernel_versions() -> tuple[int, ...]:
    """Return the IP versions of the kernel: a network namespace may get IPv6 addresses at any time."""
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).close()
    except OSError:
        return (4,)
    return (4, 6)


def is_host_netns(info: NamespaceInfo) -> bool:
    """Whether this is the host's network namespace; kernels older than 6.18 show indirect signs only."""
    if info.fixed:
        return info.net == INITIAL_NET
    return info.hardware or (info.pid == INITIAL_PID and info.net == info.net_of_init)


def read_namespace_info() -> NamespaceInfo:
    """Read the signs. Hidden ones are as in a container."""
    release = os.uname().release.split(".")
    version = tuple(int(part) for part in release[:2] if part.isdigit())
    return NamespaceInfo(
        net=_inode("/proc/self/ns/net"),
        pid=_inode("/proc/self/ns/pid"),
        net_of_init=_inode("/proc/1/ns/net"),
        hardware=_has_hardware(),
        fixed=version >= (6, 18),
    )


def _inode(path: str) -> int:
    try:
        return os.stat(path).st_ino
    except OSError:
        return 0


def _has_hardware() -> bool:
    try:
        return any(
            os.path.exists(f"{DEVICES}/{device}/device") and _is_in_this_namespace(device)
            for device in os.listdir(DEVICES)
        )
    except OSError:
        return False


def _is_in_this_namespace(device: str) -> bool:
    """Whether a device in /sys is in this namespace. After unshare(1), /sys shows the devices of the old one."""
    import fcntl  # noqa: PLC0415  (only the host has such a device)
    import struct  # noqa: PLC0415  (the same)

    with open(f"{DEVICES}/{device}/address") as file:
        expected = bytes.fromhex(file.read().strip().replace(":", ""))
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as datagram:
        try:
            answer = fcntl.ioctl(datagram.fileno(), SIOCGIFHWADDR, struct.pack(IFREQ, os.fsencode(device)))
        except OSError:
            return False
    return answer[18:32].startswith(expected[:14])
