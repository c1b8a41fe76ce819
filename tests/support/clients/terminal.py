"""A terminal to run a command on, and what it wrote there."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from imds_detour.ctl.lab.hosts import Host

COLUMNS = 100


def on_a_terminal(host: Host, *command: str, environ: Mapping[str, str]) -> tuple[int, str]:
    """Run a command in a host with a terminal as its stdin, stdout and stderr; return its status and what it wrote."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    try:
        process = subprocess.Popen(
            host.inside(*command), env={"TERM": "xterm", **environ}, stdin=theirs, stdout=theirs, stderr=theirs
        )
    finally:
        os.close(theirs)
    written = b""
    try:
        while data := os.read(ours, 4096):
            written += data
    except OSError:  # EIO: the last who had it open has ended
        pass
    finally:
        os.close(ours)
    return process.wait(), written.decode().replace("\r\n", "\n")
