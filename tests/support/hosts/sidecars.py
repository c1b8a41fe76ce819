"""A running sidecar in a network, and helpers for its tests."""

import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from tests.support.hosts.network import CTL, ID_URL, NAME, Network

SECOND = "10.88.0.4"
"""A second address of the mock's host, for a mock that moves."""
Seen = TypeVar("Seen")
LISTEN = "127.0.0.1:9138"
TIMEOUT = 30.0
"""Seconds to wait for a line."""
ASK = ("curl", "-sS", "--max-time", "5", "--fail", ID_URL)


class Sidecar:
    """The installed sidecar on the app's host."""

    def __init__(
        self, network: Network, *flags: str, start: tuple[str, ...] = (CTL, "sidecar"), **settings: str
    ) -> None:
        """Start it, with another command if ``start`` is given."""
        self.network = network
        self.process = network.app.popen(
            *start,
            *flags,
            environ=network.settings(None, **{"MOCK_TIMEOUT": "unset", **settings}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def says(self, pattern: str) -> str:
        """Wait for a line that matches, and return it."""
        assert self.process.stderr is not None
        heard = []
        late = threading.Timer(TIMEOUT, self.process.kill)
        late.start()
        try:
            for line in self.process.stderr:
                if re.search(pattern, line):
                    return line
                heard.append(line)
        finally:
            late.cancel()
        raise AssertionError(f"it ended with {self.process.wait()} and never said {pattern}, but\n{''.join(heard)}")

    def ends(self) -> int:
        """Wait for its end and return its exit status."""
        return self.process.wait(timeout=20)

    def stop(self) -> int:
        """Send SIGTERM and return its exit status."""
        self.process.terminate()
        return self.ends()

    def get(self, path: str) -> tuple[int, str]:
        """Request a path over HTTP, and return status and body."""
        done = self.network.app.run("curl", "-sS", "--max-time", "5", "-w", "\n%{http_code}", f"http://{LISTEN}{path}")
        body, _, status = done.stdout.rpartition("\n")
        return int(status), body


class Sidecars:
    """The sidecars of a test, in the order of their starts."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.made: list[Sidecar] = []

    def start(
        self, *flags: str, says: str = "verified", start: tuple[str, ...] = (CTL, "sidecar"), **settings: str
    ) -> Sidecar:
        """Start a sidecar, and return it after a line that matches ``says``."""
        self.made.append(sidecar := Sidecar(self._network, *flags, start=start, **settings))
        sidecar.says(says)
        return sidecar


def move(network: Network, address: str) -> None:
    """Change the address of the mock's name."""
    network.mock.run("sh", "-c", f"echo {NAME}={address} > /run/zone.new; mv /run/zone.new /run/zone")


def asked(network: Network) -> str:
    """Return the answer to an app at the metadata address, or curl's error."""
    done = network.app.run(*ASK, check=False)
    return done.stdout or done.stderr


def data(network: Network, instance: str) -> str:
    """Write the mock's values with another instance id to a file of its host, and return the path."""
    path = f"/run/{instance}.json"
    network.mock.run("sh", "-c", f"cat > {path} <<'E'\n{json.dumps({'meta-data': {'instance-id': instance}})}\nE")
    return path


def listed(network: Network) -> str:
    """Return the rules in nftables, without counters and handles."""
    return network.app.run("nft", "--stateless", "list", "ruleset").stdout


def translations(network: Network, backend: str) -> list[str]:
    """Return the rules that redirect the IPv4 metadata address."""
    text = network.detour_rules() if backend == "legacy" else listed(network)
    return [line for line in text.splitlines() if re.search(r"DNAT|dnat to", line)]


def count(sidecar: Sidecar, name: str) -> int:
    """Return one of the sidecar's counts."""
    return int(json.loads(sidecar.get("/status.json")[1])["counts"][name])


def until(look: Callable[[], Seen], good: Callable[[Seen], bool]) -> Seen:
    """Repeat ``look`` until ``good`` accepts its result, for ten seconds at most, and return the last result."""
    give_up = time.monotonic() + 10
    while not good(seen := look()) and time.monotonic() < give_up:
        time.sleep(0.05)
    return seen


def ticks(pid: int) -> int:
    """Return a process's clock ticks (proc(5), fields 14 and 15)."""
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def share(pid: int, seconds: float) -> float:
    """Return a process's share of a processor during so many seconds."""
    before = ticks(pid)
    time.sleep(seconds)  # the measured time
    return (ticks(pid) - before) / os.sysconf("SC_CLK_TCK") / seconds
