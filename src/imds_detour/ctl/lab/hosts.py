"""Hosts in network namespaces, joined by cables: stand-ins for containers, inside a sandbox."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Any, Self

from imds_detour.ctl.lab import sandbox
from imds_detour.errors import DetourError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

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
"""A host is a process that holds the namespaces. It ends with its standard input: when whoever made it is gone."""


class Host:
    """A host with a network, a /run, and name service files of its own."""

    def __init__(self, *, nameservers: tuple[str, ...] = (), hosts: str = "") -> None:
        """Make one; it has a loopback device and nothing else until it is linked.

        Raises:
            DetourError: outside of a sandbox, or when the kernel has no namespaces to give.

        """
        if not sandbox.inside():
            raise DetourError(
                "lab", "hosts are made in a sandbox only", "python -m imds_detour.ctl.lab.sandbox COMMAND"
            )
        self._holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "--", "sh", "-eu", "-c", HOLD, "host", *FILES],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._holder.stdout is not None  # noqa: S101  (a pipe was asked for)
        if self._holder.stdout.readline() != b"ready\n":
            self.close()
            raise DetourError("lab", "a network namespace could not be made; its complaint is above")
        self.write("resolv.conf", "".join(f"nameserver {server}\n" for server in nameservers))
        self.write("hosts", "127.0.0.1 localhost\n" + hosts)
        self.write("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n")

    def write(self, name: str, text: str) -> None:
        """Give one of FILES, which the host has to itself, another content."""
        with open(f"/proc/{self.pid}/root/run/etc/{name}", "w") as file:
            file.write(text)

    @property
    def pid(self) -> int:
        """The process that holds the namespaces."""
        return self._holder.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let the namespaces go. What still runs in there keeps them, so end that first."""
        self._holder.kill()
        self._holder.communicate()

    def inside(self, *command: str) -> list[str]:
        """Return the command line that runs a command in there; the process is the command itself, not a parent."""
        return ["nsenter", "--target", str(self.pid), "--net", "--mount", "--", *command]

    def popen(self, *command: str, environ: Mapping[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:  # noqa: ANN401  (Popen's own)
        """Start a command in there, text streams by default."""
        return subprocess.Popen(self.inside(*command), env=environ, **{"text": True, **options})

    def run(
        self,
        *command: str,
        environ: Mapping[str, str] | None = None,
        timeout: float = 60,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in there and return what it said; a failure raises, unless ``check`` is off."""
        return subprocess.run(
            self.inside(*command), env=environ, timeout=timeout, check=check, capture_output=True, text=True
        )

    def ip(self, *arguments: str) -> str:
        """Run the command of iproute2 in there, to configure or show its network, and return its output."""
        return self.run("ip", *arguments).stdout


def link(one: Host, other: Host, name: str, one_address: str, other_address: str) -> None:
    """Join two hosts by a cable that shows as device ``name`` at both, each with an address (``10.0.0.1/24``)."""
    one.ip("link", "add", name, "type", "veth", "peer", "name", name, "netns", str(other.pid))
    for host, address in ((one, one_address), (other, other_address)):
        host.ip("address", "add", address, "dev", name, *(["nodad"] if ":" in address else []))
        host.ip("link", "set", name, "up")


def environ(**settings: str) -> dict[str, str]:
    """Return this process's environment without anything of ours, and with the given settings."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MOCK_")}
    return {**plain, **settings}
