"""A network with a fake metadata service on the app's default route, watched by a capture and counters."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from imds_detour.ctl.lab.hosts import Host
from tests.support import SUPPORT
from tests.support.hosts.ip_version import IpVersion
from tests.support.hosts.network import CTL, PORT, Network, end, read_line
from tests.support.judges.capture import open_capture

LONG = os.getenv("LONG") == "1"
"""Whether to run the heavy tests completely: ``LONG=1``."""
FIREWALLS = {"legacy": "legacy iptables", "nft": "nftables"}
"""The name of each firewall in messages, by its name in MOCK_BACKEND."""
BACKENDS = tuple(FIREWALLS)
SERVERS_PORT = 1339
PROTOCOLS = ("tcp", "udp", "icmp", "other")

REFUSED = {
    "tcp 80": ["ECONNREFUSED"],
    "tcp 8080": ["ECONNREFUSED"],
    **{name: ["EPERM"] for name in ("udp", "icmp", "other")},
}
"""How the guard refuses each protocol, at once."""
REDIRECTED = {**REFUSED, "tcp 80": ["sent"]}


class Program:
    """A script of tests/support on a host that reads and writes lines."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def says(self) -> str:
        """Wait for the next line of output and return it."""
        line = read_line(self._process)
        assert line, f"{self._process.args!r} ended early, with {self._process.wait()}"
        return line.rstrip("\n")

    def tell(self, line: str) -> None:
        """Write a line to its input."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def ask(self, line: str = "") -> Any:  # noqa: ANN401  (what the script prints)
        """Write a line to its input and return its answer."""
        self.tell(line)
        return json.loads(self.says())

    def stop(self) -> None:
        """Close its input, which stops it."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def end(self) -> str:
        """Stop it and return its last line of output."""
        self.stop()
        assert self._process.stdout is not None
        said = self._process.stdout.read().splitlines()
        assert self._process.wait() == 0
        return said[-1] if said else ""


@dataclass(frozen=True, slots=True)
class Seen:
    """Packets to the metadata address that reached the fake service's host.

    Attributes:
        captured: packets in the capture, by protocol.
        counted: packets in that host's firewall counters, by protocol.
        lost: packets that the capture dropped.

    """

    captured: dict[str, int]
    counted: dict[str, int]
    lost: int


class Cloud(Network):
    """A network for one IP version: R answers on the gateway, which has the metadata address; mocks are A and B."""

    def __init__(self, ip: IpVersion) -> None:
        """Make the hosts and start everything but a metadata mock."""
        super().__init__()
        self.ip = ip
        if ip.version == 6:
            self.add_ipv6()
            self.app.ip("route", "add", "default", "via", ip.mock)
        for address in (ip.other, ip.metadata):
            self.mock.ip("address", "add", address, "dev", "lo", *(["nodad"] if ip.version == 6 else []))
        self.app.ip("route", "add", ip.other, "via", ip.mock)
        self.mocks = (f"{ip.mock},{SERVERS_PORT}", f"{ip.other},{SERVERS_PORT}")
        servers = (f"A={self.mocks[0]}", f"B={self.mocks[1]}", f"R={ip.metadata},80")
        self.start(self.mock, sys.executable, f"{SUPPORT}/servers/identity.py", *servers)
        icmp = "icmp" if ip.version == 4 else "ipv6-icmp"
        kinds = [*(f"meta l4proto {name}" for name in ("tcp", "udp", icmp)), f"meta l4proto != {{ tcp, udp, {icmp} }}"]
        counters = "\n".join(f"{ip.nft} daddr {ip.metadata} {kind} counter" for kind in kinds)
        hook = "type filter hook prerouting priority -400;"
        self.mock.run("nft", f"table inet seen {{ chain packets {{ {hook}\n{counters}\n}}\n}}")
        self._capture = self._stack.enter_context(open_capture(self.mock, "eth0", ip.metadata))

    def start_mock_everywhere(self) -> None:
        """Start a metadata mock on each address of its host."""
        self.start(self.mock, CTL, "mock", "--listen", f"[::]:{PORT}", "--quiet")

    def program(self, host: Host, script: str, *arguments: str) -> Program:
        """Start a script of tests/support on a host; it ends with the network."""
        process = host.popen(
            sys.executable, f"{SUPPORT}/{script}", *arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._stack.callback(end, process)
        return Program(process)

    def writer(self, backend: str, enough: int, *mocks: str) -> Program:
        """Start a program that rewrites the rules, and return when it has installed them once."""
        target = f"{self.ip.metadata},80"
        started = self.program(self.app, "clients/rewrite_rules.py", backend, str(enough), target, *mocks)
        assert started.says() == "ready"
        return started

    def client(self, enough: int) -> Program:
        """Start a client that reconnects to the metadata address, and return after its first connection."""
        started = self.program(self.app, "clients/reconnect.py", self.ip.metadata, "80", str(enough))
        assert started.says() == "started"
        return started

    def flood(self) -> Program:
        """Start a client that sends by each protocol to the metadata address."""
        return self.program(self.app, "clients/flood.py", self.ip.metadata)

    def seen(self) -> Seen:
        """Return the packets that reached the fake service's host so far."""
        captured, lost = self._capture.counts()
        listed = self.mock.run("nft", "list", "table", "inet", "seen").stdout
        counts = map(int, re.findall(r"counter packets (\d+)", listed))
        return Seen(captured, dict(zip(PROTOCOLS, counts, strict=True)), lost)
