"""A world with a fake "real" metadata service behind the app's default route, and two witnesses of what reaches it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.support import SUPPORT
from tests.support.hosts.world import CTL, PORT, World

if TYPE_CHECKING:
    from imds_detour.ctl.lab.hosts import Host
    from tests.support.hosts.family import Family

LONG = os.getenv("LONG") == "1"
"""Whether to run the heavy tests in full: ``LONG=1``."""
BACKENDS = ("legacy", "nft")
SERVERS_PORT = 1339
WAYS = ("tcp", "udp", "icmp", "other")

REFUSED = {
    "tcp 80": ["ECONNREFUSED"],
    "tcp 8080": ["ECONNREFUSED"],
    "udp": ["EPERM"],
    "icmp": ["EPERM"],
    "other": ["EPERM"],
}
"""What the guard makes of each way: at once, and in the way of the protocol."""
REDIRECTED = {**REFUSED, "tcp 80": ["sent"]}


class Program:
    """One of the scripts beside this file, at work in a host; it talks in lines."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def says(self) -> str:
        """Wait for its next line and return it."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"{self._process.args!r} ended early, with {self._process.wait()}"
        return line.rstrip("\n")

    def tell(self, line: str) -> None:
        """Write a line to it."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def ask(self, line: str = "") -> Any:  # noqa: ANN401  (what the script prints)
        """Write a line to it and return its answer."""
        self.tell(line)
        return json.loads(self.says())

    def stop(self) -> None:
        """End its input: whatever it does until then, it stops at."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def end(self) -> str:
        """Stop it, and return the last line that it has to say."""
        self.stop()
        assert self._process.stdout is not None
        said = self._process.stdout.read().splitlines()
        assert self._process.wait() == 0
        return said[-1] if said else ""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the two witnesses saw.

    Attributes:
        captured: packets in the capture, by way.
        counted: packets in the counters of the firewall there, by way.
        lost: packets that the capture has no room for.

    """

    captured: dict[str, int]
    counted: dict[str, int]
    lost: int


class Stage(World):
    """A world for one IP version, in which the mock's host also has the metadata address and answers there as R.

    The default route of the app's host leads to it. Two more servers, A and B, stand for two mocks.
    """

    def __init__(self, family: Family) -> None:
        """Make the hosts and start everything but a metadata mock."""
        super().__init__()
        self.family = family
        if family.version == 6:
            for host, address in ((self.mock, family.mock), (self.app, family.app)):
                host.ip("address", "add", f"{address}/{family.length}", "dev", "eth0", "nodad")
            self.app.ip("route", "add", "default", "via", family.mock)
        for address in (family.other, family.metadata):
            self.mock.ip("address", "add", address, "dev", "lo", *(["nodad"] if family.version == 6 else []))
        self.app.ip("route", "add", family.other, "via", family.mock)
        self.mocks = (f"{family.mock},{SERVERS_PORT}", f"{family.other},{SERVERS_PORT}")
        servers = (f"A={self.mocks[0]}", f"B={self.mocks[1]}", f"R={family.metadata},80")
        self.start(self.mock, sys.executable, f"{SUPPORT}/servers/answerer.py", *servers)
        icmp = "icmp" if family.version == 4 else "ipv6-icmp"
        kinds = [*(f"meta l4proto {way}" for way in ("tcp", "udp", icmp)), f"meta l4proto != {{ tcp, udp, {icmp} }}"]
        counters = "\n".join(f"{family.nft} daddr {family.metadata} {kind} counter" for kind in kinds)
        hook = "type filter hook prerouting priority -400;"
        self.mock.run("nft", f"table inet witness {{ chain seen {{ {hook}\n{counters}\n}}\n}}")
        self._capture = self.program(self.mock, "judges/witness.py", "eth0", family.metadata)
        assert self._capture.says() == "watching"

    def start_mock_everywhere(self) -> None:
        """Start a metadata mock on every address of its host."""
        self.start(self.mock, CTL, "mock", "--listen", f"[::]:{PORT}", "--quiet")

    def program(self, host: Host, script: str, *arguments: str) -> Program:
        """Start one of the scripts beside this file; it ends with the world at the latest."""
        process = host.popen(
            sys.executable, f"{SUPPORT}/{script}", *arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._stack.callback(_end, process)
        return Program(process)

    def seen(self) -> Seen:
        """Return what reached the fake real service's host so far."""
        captured = self._capture.ask()
        lost = captured.pop("lost")
        listed = self.mock.run("nft", "list", "table", "inet", "witness").stdout
        counts = map(int, re.findall(r"counter packets (\d+)", listed))
        return Seen(captured, dict(zip(WAYS, counts, strict=True)), lost)


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
