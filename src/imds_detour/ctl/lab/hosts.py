"""Hosts in network namespaces, joined by cables, inside a sandbox. They act as containers."""

import os
import subprocess
from collections.abc import Mapping
from typing import Any, Self

from imds_detour.ctl.lab import sandbox
from imds_detour.errors import DetourError

FILES = ("resolv.conf", "hosts", "nsswitch.conf")
HOLD = """
mount -t tmpfs tmpfs /run
mkdir /run/etc
for file in "$@"; do
    : > /run/etc/$file
    place=$(readlink -m /etc/$file)
    mkdir -p "$(dirname "$place")"
    [ -e "$place" ] || : > "$place"
    mount --bind /run/etc/$file "$place"
done
ip link set lo up
echo ready
exec cat
"""
"""The script of the process that holds a host's namespaces. It ends with its standard input, so with its parent."""


class Host:
    """A host with its own network, /run, and name service files; start_host() starts one."""

    def __init__(self, holder: subprocess.Popen[bytes]) -> None:
        self._holder = holder  # the process that holds the namespaces
        self.pid = holder.pid

    def write(self, name: str, text: str) -> None:
        """Replace the content of one of FILES."""
        with open(f"/proc/{self.pid}/root/run/etc/{name}", "w") as file:
            file.write(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the host. Processes that still run in it keep its namespaces, so end them first."""
        self._holder.kill()
        self._holder.communicate()

    def inside(self, *command: str) -> list[str]:
        """Return the command line that runs a command in the host; the process becomes the command."""
        return ["nsenter", "--target", str(self.pid), "--net", "--mount", "--", *command]

    def popen(self, *command: str, environ: Mapping[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:  # noqa: ANN401  (Popen's own)
        """Start a command in the host, with text streams by default."""
        return subprocess.Popen(self.inside(*command), env=environ, **{"text": True, **options})

    def run(
        self, *command: str, environ: Mapping[str, str] | None = None, timeout: float = 60, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the host and return its output; a failure raises, unless ``check`` is off."""
        return subprocess.run(
            self.inside(*command), env=environ, timeout=timeout, check=check, capture_output=True, text=True
        )

    def ip(self, *arguments: str) -> str:
        """Run iproute2's command in the host and return its output."""
        return self.run("ip", *arguments).stdout


def start_host(*, nameservers: tuple[str, ...] = (), hosts: str = "") -> Host:
    """Start a host. It has a loopback device and nothing else until it is linked."""
    if not sandbox.inside():
        raise DetourError("lab", "hosts are made in a sandbox only", "python -m imds_detour.ctl.lab.sandbox COMMAND")
    holder = subprocess.Popen(
        ["unshare", "--net", "--mount", "--", "sh", "-eu", "-c", HOLD, "host", *FILES],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None  # noqa: S101  (a pipe was asked for)
    host = Host(holder)
    if holder.stdout.readline() != b"ready\n":
        host.close()
        raise DetourError("lab", "a network namespace could not be made; the error is above")
    host.write("resolv.conf", "".join(f"nameserver {server}\n" for server in nameservers))
    host.write("hosts", "127.0.0.1 localhost\n" + hosts)
    host.write("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n")
    return host


def link(left: Host, right: Host, name: str, left_address: str, right_address: str) -> None:
    """Join two hosts by a cable, device ``name`` at both, each with an address (``10.0.0.1/24``)."""
    left.ip("link", "add", name, "type", "veth", "peer", "name", name, "netns", str(right.pid))
    for host, address in ((left, left_address), (right, right_address)):
        host.ip("address", "add", address, "dev", name, *(["nodad"] if ":" in address else []))
        host.ip("link", "set", name, "up")


def environ(**settings: str) -> dict[str, str]:
    """Return this process's environment with these MOCK_* settings and no others."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MOCK_")}
    return {**plain, **settings}
