"""A network namespace that looks like the host's, to the check for kernels before 6.18."""

HARDWARE = """
mount -t tmpfs tmpfs /sys/class/net
mkdir -p /sys/class/net/eth0/device
echo ${1:-$(ip link show eth0 | sed -n "s/.*ether \\([^ ]*\\).*/\\1/p")} >/sys/class/net/eth0/address
shift
exec "$@"
"""
AN_OLD_KERNEL = ("setarch", "--uname-2.6")
"""Report an old kernel version (personality(2): UNAME26), so that the check uses signs instead of fixed numbers."""
HARDWARE_AT = (*AN_OLD_KERNEL, "unshare", "--mount", "sh", "-euc", HARDWARE, "sh")
BY_HARDWARE = (*HARDWARE_AT, "")
"""The only network device is hardware."""
