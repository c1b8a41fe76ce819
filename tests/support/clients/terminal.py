"""Commands on a terminal, and their output there."""

import fcntl
import os
import pty
import struct
import subprocess
import termios
from collections.abc import Mapping

from imds_detour.ctl.lab.hosts import Host

COLUMNS = 100


def on_a_terminal(host: Host, *command: str, environ: Mapping[str, str], columns: int = COLUMNS) -> tuple[int, str]:
    """Run a command on a host with a terminal as stdin, stdout and stderr; return its status and output."""
    own, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    try:
        process = subprocess.Popen(
            host.inside(*command), env={"TERM": "xterm", **environ}, stdin=terminal, stdout=terminal, stderr=terminal
        )
    finally:
        os.close(terminal)
    written = b""
    try:
        while data := os.read(own, 4096):
            written += data
    except OSError:  # EIO: the last who had it open has ended
        pass
    finally:
        os.close(own)
    return process.wait(), written.decode().replace("\r\n", "\n")
