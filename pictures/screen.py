"""A terminal to run a command on, and what its screen shows at the end."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios
from typing import TYPE_CHECKING

import pyte

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pyte.screens import Char

COLUMNS, LINES = 240, 80
"""More than needed, so that no word is broken and nothing scrolls away."""


def shown(command: Sequence[str], environ: Mapping[str, str]) -> list[list[Char]]:
    """Run a command with a terminal as its stdin, stdout and stderr; return the screen's rows down to the last line."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    process = subprocess.Popen(
        command, env={**environ, "TERM": "xterm"}, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)
    try:
        while data := os.read(ours, 4096):
            stream.feed(data)
    except OSError:  # EIO: the last who had it open has ended
        pass
    finally:
        os.close(ours)
    process.wait()
    rows = [[screen.buffer[line][column] for column in range(COLUMNS)] for line in range(LINES)]
    while rows and not "".join(char.data for char in rows[-1]).strip():
        rows.pop()
    return rows
