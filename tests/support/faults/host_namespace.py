"""A network namespace that looks like the host's own, by the signs of kernels before 6.18."""

from __future__ import annotations

HARDWARE = """
mount -t tmpfs tmpfs /sys/class/net
mkdir -p /sys/class/net/eth0/device
echo ${1:-$(ip link show eth0 | sed -n "s/.*ether \\([^ ]*\\).*/\\1/p")} >/sys/class/net/eth0/address
shift
exec "$@"
"""
AN_OLD_KERNEL = ("setarch", "--uname-2.6")
"""Calls itself so (personality(2): UNAME26): then signs have to tell whose namespace it is."""
HARDWARE_AT = (*AN_OLD_KERNEL, "unshare", "--mount", "sh", "-euc", HARDWARE, "sh")
BY_HARDWARE = (*HARDWARE_AT, "")
"""There is hardware behind the one network device."""
