"""Checks whether this process can use legacy iptables in this network namespace. They change no rules."""

from __future__ import annotations

import errno
import os

# By name, because `import ctypes` gives an empty package if its file cannot be read.
from ctypes import CDLL, byref, c_uint32, create_string_buffer, get_errno

from imds_detour.errors import DetourError
from imds_detour.lean import socket
from imds_detour.system.capabilities import NET_ADMIN, NET_RAW, effective

FAMILIES = {4: (socket.AF_INET, 0), 6: (socket.AF_INET6, 41)}
"""Address family, and level of its socket options: SOL_IP (linux/in.h), SOL_IPV6 (linux/in6.h)."""
SO_GET_INFO = 64
"""IPT_SO_GET_INFO (linux/netfilter_ipv4/ip_tables.h). IP6T_SO_GET_INFO is the same number."""
INFO_SIZE = 84
"""sizeof(struct ipt_getinfo): a table name of 32 bytes, then 13 numbers of 4 bytes."""
TABLE_NAMES = {4: "/proc/self/net/ip_tables_names", 6: "/proc/self/net/ip6_tables_names"}
"""The kernel's lists of the tables in this network namespace, a name a line."""


def existing_tables(version: int) -> frozenset[str] | None:
    """Return the names of the legacy tables, None if they cannot be read. Reading any other table would create it."""
    try:
        with open(TABLE_NAMES[version]) as names:
            return frozenset(names.read().split())
    except FileNotFoundError:
        return frozenset()  # the kernel has no legacy iptables, or has not loaded it
    except OSError:
        return None


def readable_versions() -> tuple[int, ...]:
    """Return the IP versions whose legacy tables may have rules: 4, and 6 unless there is none of its tables."""
    return (4,) if existing_tables(6) == frozenset() else (4, 6)


def require_capabilities() -> None:
    """Raise DetourError if this process lacks a capability that legacy iptables needs."""
    capabilities = effective()
    if not capabilities & NET_ADMIN:
        from imds_detour.advice.access import no_net_admin  # noqa: PLC0415  (only a start that fails needs it)

        raise no_net_admin(os.geteuid())
    if not capabilities & NET_RAW:
        raise no_net_raw()


def no_net_raw() -> DetourError:
    """Return the error for a process without NET_RAW. A start with MOCK_BACKEND=auto takes nftables then."""
    reason = "no NET_RAW capability, which legacy iptables needs to open its socket"
    remedy = "add it: in Compose `cap_add: [NET_ADMIN, NET_RAW]`; or let MOCK_BACKEND be auto, which uses nftables"
    return DetourError("firewall", reason, remedy)


def require_tables(version: int) -> None:
    """Raise DetourError if the kernel refuses the legacy tables of an IP version. The kernel may load their modules."""
    for table in ("filter", "nat"):
        if not (number := _info_errno(version, table)):
            continue
        problem = "refuses legacy iptables"
        remedy = "the network namespace may belong to another user namespace: run as root of the one that owns it"
        if number in (errno.ENOPROTOOPT, errno.ENOENT):
            problem = "has no legacy iptables here"
            remedy = f"load it on the host: `modprobe {'iptable' if version == 4 else 'ip6table'}_{table}`"
        raise DetourError("firewall", f"the kernel {problem} (table {table}: {os.strerror(number)})", remedy)


def _info_errno(version: int, table: str) -> int:
    """Ask for the size of a table, as iptables does first. Return the errno, or 0 if there is such a table."""
    family, level = FAMILIES[version]
    libc = CDLL(None, use_errno=True)
    info = create_string_buffer(table.encode(), INFO_SIZE)
    size = c_uint32(INFO_SIZE)
    try:
        raw = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
    except OSError as error:
        return error.errno or errno.EIO
    # socket.getsockopt() cannot pass the name of the table.
    failed = libc.getsockopt(raw.fileno(), level, SO_GET_INFO, info, byref(size))
    number = get_errno() if failed else 0
    raw.close()
    return number
