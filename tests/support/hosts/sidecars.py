"""The installed sidecar at work in a network, and what tests ask of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
import time
from typing import TYPE_CHECKING, TypeVar

from tests.support.hosts.network import CTL, ID_URL, NAME

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.hosts.network import Network

SECOND = "10.88.0.4"
"""Another address of the mock's host, for a mock that moves."""
Seen = TypeVar("Seen")
LISTEN = "127.0.0.1:9138"
TIMEOUT = 30.0
"""Seconds for a line to be said, after which there is no hope."""
ASK = ("curl", "-sS", "--max-time", "5", "--fail", ID_URL)


class Sidecar:
    """The installed sidecar at work on the app's host; what it says is read line by line."""

    def __init__(
        self, network: Network, *flags: str, start: tuple[str, ...] = (CTL, "sidecar"), **settings: str
    ) -> None:
        """Start it, in another way where ``start`` says so."""
        self.network = network
        self.process = network.app.popen(
            *start,
            *flags,
            environ=network.settings(None, **{"MOCK_TIMEOUT": "unset", **settings}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def says(self, pattern: str) -> str:
        """Wait for a line that has this in it, and return it."""
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

    def get(self, path: str) -> tuple[int, str]:
        """Ask it over HTTP, and return status and body."""
        done = self.network.app.run("curl", "-sS", "--max-time", "5", "-w", "\n%{http_code}", f"http://{LISTEN}{path}")
        body, _, status = done.stdout.rpartition("\n")
        return int(status), body


def move(network: Network, address: str) -> None:
    """Let the mock's name lead there."""
    network.mock.run("sh", "-c", f"echo {NAME}={address} > /run/zone.new; mv /run/zone.new /run/zone")


def asked(network: Network) -> str:
    """Return what an app reads at the metadata address; or curl's complaint."""
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
    """Return the rules that send the IPv4 metadata address elsewhere."""
    text = network.ours() if backend == "legacy" else listed(network)
    return [line for line in text.splitlines() if re.search(r"DNAT|dnat to", line)]


def count(sidecar: Sidecar, name: str) -> int:
    """Return one of the sidecar's counts."""
    return int(json.loads(sidecar.get("/status.json")[1])["counts"][name])


def until(look: Callable[[], Seen], good: Callable[[Seen], bool]) -> Seen:
    """Look until it is good, for ten seconds at most, and return what was seen last."""
    give_up = time.monotonic() + 10
    while not good(seen := look()) and time.monotonic() < give_up:
        time.sleep(0.05)
    return seen


def ticks(pid: int) -> int:
    """Return the clock ticks that a process has spent (proc(5), fields 14 and 15)."""
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def share(pid: int, seconds: float) -> float:
    """Watch a process for so long, and return the share of a processor that it took."""
    before = ticks(pid)
    time.sleep(seconds)  # what is measured is what happens meanwhile
    return (ticks(pid) - before) / os.sysconf("SC_CLK_TCK") / seconds
