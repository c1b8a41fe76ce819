"""Namespaces without a network, for commands that change the network, mounts and processes.

A command in a sandbox is root; for another user, a user namespace makes it so. When the command ends or is killed, all
its processes end and the kernel removes the namespaces: nothing remains on the machine.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress

SETUP = 'mount -t tmpfs tmpfs /run && ip link set lo up && hostname sandbox && exec "$@"'
"""An empty /run hides the machine's sockets (name service caches, container engines) and lock files. The host name has
no domain, which name look-ups would search."""
ROOTS_FOLDERS = ("/usr/sbin", "/sbin")
"""The folders of ip and iptables, which Debian's users other than root do not have on the PATH."""


def path(environ: Mapping[str, str]) -> str:
    """Return an environment's PATH with root's folders."""
    folders = environ.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join([*folders, *(folder for folder in ROOTS_FOLDERS if folder not in folders)])


def missing() -> str:
    """Return why no sandbox can be made, with the remedy; an empty string if one can."""
    for tool, package in (("unshare", "util-linux"), ("nsenter", "util-linux"), ("ip", "iproute2")):
        if not shutil.which(tool, path=path(os.environ)):
            return f"{tool} is not installed: sudo apt-get install -y {package}"
    probe = subprocess.run(_unshare(["true"]), capture_output=True, text=True, check=False)
    if probe.returncode:
        last = probe.stderr.strip().splitlines()[-1:] or ["unshare failed"]
        return f"no namespaces for this user ({last[0]}): run as root, or allow unprivileged user namespaces"
    return ""


def inside() -> bool:
    """Whether this process is in a network namespace with a loopback device only."""
    return [name for _, name in socket.if_nameindex()] == ["lo"]


def run(command: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run a command in a new sandbox, with root's folders on its PATH, and return its exit status.

    SIGTERM and SIGHUP end it at once.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))
    with subprocess.Popen(_unshare(command), env={**environ, "PATH": path(environ)}) as process:
        try:
            while True:
                with suppress(KeyboardInterrupt):  # Ctrl-C goes to the whole foreground group: the command ends itself
                    status = process.wait()
                    return 128 - status if status < 0 else status
        finally:
            process.kill()  # unshare's --kill-child kills the sandbox's first process, and the kernel kills the others


def _unshare(command: Sequence[str]) -> list[str]:
    as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    namespaces = ["--net", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc"]
    # If this process is killed, unshare is too, and with it everything in the sandbox.
    tied = ["setpriv", "--pdeathsig", "KILL", "unshare"]
    return [*tied, *as_root, *namespaces, "--", "sh", "-c", SETUP, "sandbox", *command]


def main() -> int:
    """Run ``python -m imds_detour.ctl.lab.sandbox COMMAND [ARG...]``."""
    if why := missing():
        sys.stderr.write(f"sandbox: {why}\n")
        return 2
    return run(sys.argv[1:], os.environ)


if __name__ == "__main__":
    sys.exit(main())
