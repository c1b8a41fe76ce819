"""Which IP versions this network namespace has: the first thing that is looked at, so it imports next to nothing."""

from __future__ import annotations

import _socket as socket  # without the enums and selectors of socket, which take 3 ms to load


def here() -> tuple[int, ...]:
    """Return the IP versions of this network namespace: 4, and 6 where a device has an address (proc(5), if_inet6).

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
