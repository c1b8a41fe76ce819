"""A run of the virtual machine, and its console as results by check."""

import re
import shutil
import subprocess
from typing import NamedTuple

from tests.arm64.image import INITRAMFS, KERNEL

SECONDS = 900
"""After which a run counts as hung; it takes two minutes on two processors."""
QEMU = "qemu-system-aarch64"
COMMAND = (
    *(QEMU, "-machine", "virt", "-cpu", "cortex-a76", "-accel", "tcg,thread=multi", "-smp", "2", "-m", "1024"),
    *("-nic", "none", "-display", "none", "-monitor", "none", "-serial", "stdio", "-no-reboot"),
    *("-kernel", KERNEL, "-initrd", INITRAMFS, "-append", "console=ttyAMA0 quiet loglevel=0 panic=-1"),
)
"""cortex-a76 can have 4K, 16K and 64K pages. No disk, no network device; a panic ends the machine."""


class Seen(NamedTuple):
    """What a check printed, and its exit status."""

    out: str
    err: str
    status: int


def run() -> tuple[dict[int, Seen], str]:
    """Run the machine to its end, and return the results by the checks' numbers, and the console."""
    program = shutil.which(QEMU) or QEMU
    with subprocess.Popen((program, *COMMAND[1:]), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as machine:
        try:
            console = machine.communicate(timeout=SECONDS)[0].decode(errors="replace").replace("\r\n", "\n")
        finally:
            machine.kill()
    return parse(console), console


def parse(console: str) -> dict[int, Seen]:
    """Return the results in a console's text (guest/init), by the checks' numbers."""
    results = {}
    blocks = re.findall(r"^@@ check (\d+)\n(.*?)^@@ status (\d+)$", console, re.MULTILINE | re.DOTALL)
    for number, printed, status in blocks:
        out, err = ("".join(f"{line}\n" for line in re.findall(rf"^@{of} (.*)$", printed, re.MULTILINE)) for of in "oe")
        results[int(number)] = Seen(out, err, int(status))
    return results
