"""Can this process change this namespace's firewall? Asked without changing anything."""

from __future__ import annotations

import ctypes
import errno
import os

from imds_detour.errors import DetourError
from imds_detour.firewall.refusals import no_net_admin
from imds_detour.lean import socket
from imds_detour.system.capabilities import NET_ADMIN, NET_RAW, effective

FAMILIES = {4: (socket.AF_INET, 0), 6: (socket.AF_INET6, 41)}
"""Address family, and the level of its socket options: SOL_IP (linux/in.h), SOL_IPV6 (linux/in6.h)."""
SO_GET_INFO = 64
"""linux/netfilter_ipv4/ip_tables.h: IPT_BASE_CTL; the same for IPv6."""
INFO_SIZE = 84
"""sizeof(struct ipt_getinfo): the table's name in 32 bytes, then 13 numbers of 4."""
MADE = {4: "/proc/self/net/ip_tables_names", 6: "/proc/self/net/ip6_tables_names"}
"""Where the kernel lists the tables that a network namespace has so far, one a line."""


def tables_made(version: int) -> frozenset[str] | None:
    """Return the legacy tables that there are; None where that is not to be seen. To look into another one makes it."""
    try:
        with open(MADE[version]) as names:
            return frozenset(names.read().split())
    except OSError:
        return None


def require_capabilities() -> None:
    """Return when this process may use legacy iptables; nobody but the kernel's /proc is asked.

    Raises:
        DetourError: with the capability that is missing and the line that adds it.

    """
    have = effective()
    if not have & NET_ADMIN:
        raise no_net_admin(os.geteuid())
    if not have & NET_RAW:
        raise DetourError(
            "firewall",
            "no NET_RAW capability, which legacy iptables needs to open its socket",
            "add it: in Compose `cap_add: [NET_ADMIN, NET_RAW]`, with docker run `--cap-add NET_RAW` as well",
        )


def require_tables(version: int) -> None:
    """Return when the kernel has legacy iptables of an IP version; as iptables itself, it may load its modules now.

    Raises:
        DetourError: with the kernel feature that is missing and the line that adds it.

    """
    for table in ("filter", "nat"):
        number = _info_errno(version, table)
        if number in (errno.ENOPROTOOPT, errno.ENOENT):
            raise DetourError(
                "firewall",
                f"the kernel has no legacy iptables here (table {table}: {os.strerror(number)})",
                f"load it on the host: `modprobe {'iptable' if version == 4 else 'ip6table'}_{table}`",
            )
        if number:
            raise DetourError(
                "firewall",
                f"the kernel refuses legacy iptables (table {table}: {os.strerror(number)})",
                "the network namespace may belong to another user namespace: run as root of the one that owns it",
            )


def _info_errno(version: int, table: str) -> int:
    """Ask for a table's size, as iptables does first of all, and return the errno; 0 is yes."""
    family, level = FAMILIES[version]
    libc = ctypes.CDLL(None, use_errno=True)
    info = ctypes.create_string_buffer(table.encode(), INFO_SIZE)
    size = ctypes.c_uint32(INFO_SIZE)
    try:
        raw = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
    except OSError as error:
        return error.errno or errno.EIO
    # socket.getsockopt() cannot pass the table's name in, hence libc.
    failed = libc.getsockopt(raw.fileno(), level, SO_GET_INFO, info, ctypes.byref(size))
    number = ctypes.get_errno() if failed else 0
    raw.close()
    return number
