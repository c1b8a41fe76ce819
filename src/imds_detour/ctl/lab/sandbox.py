"""Namespaces without a way out, in which a command may do what it likes to network, mounts and processes.

Everything in there is root; where we are not root outside, a user namespace makes it so. When the command ends, or is
killed, whatever it started ends with it and the namespaces go: nothing is left on the machine.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SETUP = 'mount -t tmpfs tmpfs /run && ip link set lo up && hostname sandbox && exec "$@"'
"""/run anew: the machine's own sockets (name service caches, container engines) and lock files are out of reach. And a
host name without a domain, which name look-ups would search."""
ROOTS_PLACES = ("/usr/sbin", "/sbin")
"""Where ip and iptables are; an ordinary user of Debian has neither on the PATH, and in a sandbox everybody is root."""


def path(environ: Mapping[str, str]) -> str:
    """Return an environment's PATH with what root finds there."""
    places = environ.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join([*places, *(place for place in ROOTS_PLACES if place not in places)])


def missing() -> str:
    """Say why no sandbox can be made here, with the remedy; empty when one can."""
    for tool, package in (("unshare", "util-linux"), ("nsenter", "util-linux"), ("ip", "iproute2")):
        if not shutil.which(tool, path=path(os.environ)):
            return f"{tool} is not installed: sudo apt-get install -y {package}"
    probe = subprocess.run(_unshare(["true"]), capture_output=True, text=True, check=False)
    if probe.returncode:
        why = probe.stderr.strip().splitlines()[-1:] or ["unshare failed"]
        return f"no namespaces for this user ({why[0]}): run as root, or allow unprivileged user namespaces"
    return ""


def inside() -> bool:
    """Whether this process is in a network namespace with nothing but a loopback device."""
    return [name for _, name in socket.if_nameindex()] == ["lo"]


class _StoppedError(Exception):
    """A signal told us to stop."""


def run(command: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run a command in a sandbox of its own, root's places on its PATH, and return its exit status.

    SIGTERM and SIGHUP end all of it at once.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    process = subprocess.Popen(_unshare(command), env={**environ, "PATH": path(environ)})
    while True:
        try:
            status = process.wait()
        except KeyboardInterrupt:
            continue  # Ctrl-C goes to the whole foreground group: those in there end by themselves, and then we do
        except _StoppedError as stopped:
            process.kill()  # unshare's --kill-child takes the first process in there along, and that one all the others
            process.wait()
            return 128 + int(stopped.args[0])
        return 128 - status if status < 0 else status


def _stop(number: int, _frame: object) -> None:
    raise _StoppedError(number)


def _unshare(command: Sequence[str]) -> list[str]:
    as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    namespaces = ["--net", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc"]
    # Should we be killed, unshare is too, and takes everything in there along.
    tied = ["setpriv", "--pdeathsig", "KILL", "unshare"]
    return [*tied, *as_root, *namespaces, "--", "sh", "-c", SETUP, "sandbox", *command]


def main() -> int:
    """Run the command line's command in a sandbox: ``python -m imds_detour.ctl.lab.sandbox COMMAND [ARG...]``."""
    if why := missing():
        sys.stderr.write(f"sandbox: {why}\n")
        return 2
    return run(sys.argv[1:], os.environ)


if __name__ == "__main__":
    sys.exit(main())
