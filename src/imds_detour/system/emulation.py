"""QEMU's user mode, by which engines run images of other architectures: it passes neither iptables nor nftables on."""

from __future__ import annotations

import os

REMEDY = "build or pull the image for this machine's architecture: an emulator (QEMU) runs it, which has no firewall"


def is_emulated() -> bool:
    """Whether an emulator runs this process: it shows itself as the program in /proc/self/exe, and there alone."""
    try:
        return os.readlink("/proc/self/exe") != os.readlink("/proc/thread-self/exe")
    except OSError:
        return False
