"""Where a client runs: an app's host behind imds-detour, a mock that logs each request, and a proxy that is a trap."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.clients.installs import PROGRAMS
from tests.support.hosts.network import CTL, DETOUR, MOCK, NAME, PORT, Network

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from imds_detour.ctl.lab.hosts import Host
    from tests.clients.cases import Case

OURS = (CTL, "mock", "--listen", f"[::]:{PORT}")
"""Our mock."""
MOCK6, APP6 = "fd88::3", "fd88::2"
METADATA_ADDRESSES = ("169.254.169.254", "169.254.170.2", "169.254.170.23", "fd00:ec2::254", "fd00:ec2::23")
TRAP = "http://127.0.0.1:3128"
PROXIES = dict.fromkeys(("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"), TRAP)
"""Every variable that any client takes for a proxy."""
START, END = "/the-client-starts", "/the-client-ended"
"""Marks in a mock's log. It writes a line after the answer is out, so the last ones may come late: END ends them."""
COMMON = {
    "PATH": f"{PROGRAMS}/shadow:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "HOME": "/nonexistent",
    # Patience, where SDKs give a metadata service one second: this machine may be busy.
    "AWS_METADATA_SERVICE_TIMEOUT": "30",
    "AWS_METADATA_SERVICE_NUM_ATTEMPTS": "2",
    "GCE_METADATA_TIMEOUT": "30",
}
"""What every client has in its environment, and nothing else of the machine's: no profile, no proxy, no credentials."""
REQUEST = re.compile(r"(GET|PUT|HEAD|POST) (/\S*)(?: HTTP/1\.[01]\S*)? (\d{3})\b")
"""In a line of our mock's log as in one of werkzeug's, which moto's server is made with."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one run of a client.

    Attributes:
        printed: the JSON that it printed; empty where it printed none.
        asked: its requests as the mock's log has them, method, target and status.
        trapped: the requests that came to the proxy.
        stderr: what imds-detour and the client said there.

    """

    printed: dict[str, Any]
    asked: list[str]
    trapped: list[str]
    stderr: str


def expect(case: Case, outcome: Outcome) -> None:
    """Fail unless the client printed the mock's values, and the mock was asked what it must be, and refused nothing."""
    assert outcome.printed, outcome.stderr
    assert {**outcome.printed, **case.printed} == outcome.printed
    rest = iter(outcome.asked)
    assert [start for start in case.asked if not any(one.startswith(start) for one in rest)] == [], outcome.asked
    assert [one for one in outcome.asked if not one.endswith(" 200")] == []


class Place(Network):
    """A network with both IP versions, in which nobody but the mock answers.

    The metadata addresses lie behind the app's default route, on a host where nothing listens at port 80: without
    imds-detour, a client is refused at once.
    """

    def __init__(self) -> None:
        """Make the hosts, and start the DNS server and the trap."""
        super().__init__()
        for host, address in ((self.mock, MOCK6), (self.app, APP6)):
            host.ip("address", "add", f"{address}/64", "dev", "eth0", "nodad")
        self.app.ip("route", "add", "default", "via", MOCK6)
        for address in METADATA_ADDRESSES:
            self.mock.ip("address", "add", address, "dev", "lo", *(["nodad"] if ":" in address else []))
        self.start_dns(f"{NAME}={MOCK},{MOCK6}")
        self._trap = self.start(
            self.app, sys.executable, f"{os.path.dirname(__file__)}/trap.py", TRAP.rpartition(":")[2]
        )
        self._log: subprocess.Popen[str] | None = None
        self._served_at = MOCK

    def serve(self, *command: str, host: Host | None = None) -> None:
        """Start a mock on both IP versions; its first line says that it listens, the others are its log."""
        self._served_at = MOCK if host is None or host is self.mock else "127.0.0.1"
        self._log = self.start(host or self.mock, *command)

    def run(self, *command: str, environ: Mapping[str, str], **settings: str) -> Outcome:
        """Run a client as the app behind imds-detour, in an environment that has nothing but what is said."""
        return self._outcome(*self._behind_us(*command, **settings), environ)

    def alone(self, *command: str, environ: Mapping[str, str]) -> Outcome:
        """Run a client without imds-detour."""
        return self._outcome(command, {}, environ)

    def first_trapped(self, *command: str, environ: Mapping[str, str], **settings: str) -> str:
        """Run a client behind imds-detour until the proxy has a request of it; return that, or nothing at its end."""
        line, more = self._behind_us(*command, **settings)
        client = self.app.popen(
            *line, environ={**COMMON, **environ, **more}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._stack.callback(client.kill)

        def mark_its_end() -> None:
            client.wait()
            self._mark_trap()

        ended = threading.Thread(target=mark_its_end)
        ended.start()
        first = next(self._trap_lines())
        client.kill()
        ended.join()
        return "" if END in first else first

    def _behind_us(self, *command: str, **settings: str) -> tuple[tuple[str, ...], dict[str, str]]:
        marked = ("sh", f"{PROGRAMS}/after_mark.sh", f"http://{self._served_at}:{PORT}{START}", *command)
        host = NAME if self._served_at == MOCK else self._served_at
        return (DETOUR, *marked), {"MOCK_HOSTNAME": host, "MOCK_PORT": PORT, "MOCK_TIMEOUT": "60", **settings}

    def _outcome(self, command: tuple[str, ...], settings: dict[str, str], environ: Mapping[str, str]) -> Outcome:
        done = self.app.run(*command, environ={**COMMON, **environ, **settings}, timeout=120, check=False)
        lines = done.stdout.strip().splitlines()
        printed = json.loads("".join(lines)) if lines and done.returncode == 0 else {}
        return Outcome(printed, self._asked(), self._trapped(), done.stderr)

    def _asked(self) -> list[str]:
        if self._log is None:
            return []
        self.app.run("curl", "-sS", "--output", "/dev/null", f"http://{self._served_at}:{PORT}{END}")
        assert self._log.stdout is not None
        asked: list[str] = []
        for line in self._log.stdout:
            found = REQUEST.search(line)
            if found and found[2] == END:
                return asked
            if found and found[2] == START:
                asked.clear()
            elif found:
                asked.append(" ".join(found.groups()))
        raise AssertionError("the mock is gone")

    def _trapped(self) -> list[str]:
        self._mark_trap()
        return list(itertools.takewhile(lambda line: END not in line, self._trap_lines()))

    def _mark_trap(self) -> None:
        self.app.run("curl", "-sS", "--output", "/dev/null", f"{TRAP}{END}")

    def _trap_lines(self) -> Iterator[str]:
        assert self._trap.stdout is not None
        return (line.rstrip("\n") for line in self._trap.stdout)
