"""The kernel's notices of changes in nftables. Legacy iptables gives none, so its rules are read at intervals."""

from imds_detour.lean import socket

# linux/netlink.h, linux/socket.h, linux/netfilter/nfnetlink.h
NETLINK_NETFILTER, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NFNLGRP_NFTABLES = 12, 270, 1, 7


def open_firewall_events() -> socket.socket | None:
    """Return a socket that is readable after a change, None where the kernel has no nftables."""
    try:
        events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        events.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NFNLGRP_NFTABLES)
        events.setblocking(False)
    except OSError:
        return None
    return events


def read_events(events: socket.socket) -> bool:
    """Read all notices, and return whether there was one."""
    seen = False
    while True:
        try:
            events.recv(65_536)
        except OSError as error:
            if isinstance(error, BlockingIOError):  # and not ENOBUFS: more changes than fit
                return seen
        seen = True
