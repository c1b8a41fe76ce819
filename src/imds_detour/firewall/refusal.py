"""Ask the kernel, without any capability, whether it refuses packets to an address."""

from __future__ import annotations

import errno
import struct

from imds_detour.lean import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from imds_detour.endpoint import Address

IP_UNICAST_IF = 50
"""linux/in.h: the device that UDP packets of a socket leave by."""
UNUSED_PORT = 9
"""Discard (RFC 863). Redirects are for TCP only."""


def is_refused(address: Address) -> bool:
    """Return whether a firewall of this network namespace refuses packets to an IPv4 address.

    It sends one over the loopback device. A guard refuses it in the hook that all packets of processes pass. Without
    a guard the kernel drops it, because it came back to a machine that does not have the address: it never leaves.
    IPv6 has no such socket option that keeps packets from leaving, so for an IPv6 address this is False.
    """
    if address.version != 4:
        return False
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sender.setblocking(False)
        sender.setsockopt(socket.IPPROTO_IP, IP_UNICAST_IF, struct.pack("!I", socket.if_nametoindex("lo")))
        sender.sendto(b"", (str(address), UNUSED_PORT))
    except OSError as error:
        return error.errno == errno.EPERM
    finally:
        sender.close()
    return False
