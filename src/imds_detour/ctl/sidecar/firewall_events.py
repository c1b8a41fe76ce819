"""The kernel's notices of changes in nftables. Legacy iptables gives none, so its rules are read at intervals."""

from __future__ import annotations

from contextlib import suppress

from imds_detour.lean import socket

NETLINK_NETFILTER, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP = 12, 270, 1  # linux/netlink.h, linux/socket.h
NFNLGRP_NFTABLES = 7  # linux/netfilter/nfnetlink.h


class FirewallEvents:
    """A descriptor that is readable after a change."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def fileno(self) -> int:
        """Return the descriptor, for select()."""
        return self._connection.fileno()

    def clear(self) -> bool:
        """Read all notices, and return whether there was one."""
        seen = False
        with suppress(BlockingIOError):
            while True:
                try:
                    self._connection.recv(65_536)
                except BlockingIOError:
                    raise
                except OSError:  # ENOBUFS: more changes than fit; they count as one
                    pass
                seen = True
        return seen


def open_firewall_events() -> FirewallEvents | None:
    """Listen for changes; None where the kernel has no nftables."""
    try:
        connection = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        connection.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NFNLGRP_NFTABLES)
        connection.setblocking(False)
    except OSError:
        return None
    return FirewallEvents(connection)
