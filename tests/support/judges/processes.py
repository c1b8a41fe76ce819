"""Processes as /proc shows them: children, and the processes in a network namespace."""

import os
from contextlib import suppress

from imds_detour.ctl.lab.hosts import Host


def children(pid: int) -> list[int]:
    """Return the children of a process's main thread; none after its end."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(child) for child in file.read().split()]
    except OSError:
        return []


def processes_in(host: Host) -> tuple[str, ...]:
    """Return the command lines in a host's network namespace, without the process that holds it."""
    namespace = os.readlink(f"/proc/{host.pid}/ns/net")
    commands = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):  # the process has ended
            if os.readlink(f"/proc/{pid}/ns/net") == namespace and int(pid) != host.pid:
                with open(f"/proc/{pid}/cmdline", "rb") as line:
                    commands.append(line.read().replace(b"\0", b" ").decode(errors="replace"))
    return tuple(commands)
