"""The place of a client test: the app's host with imds-detour, a mock that logs requests, and a proxy as a trap."""

import itertools
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from imds_detour.ctl.lab.hosts import Host
from tests.clients.cases import Case
from tests.clients.installs import PROGRAMS
from tests.support.hosts.network import CTL, DETOUR, MOCK, NAME, PORT, Network

OWN_MOCK = (CTL, "mock", "--listen", f"[::]:{PORT}")
"""The command of imds-detour's development mock."""
MOCK6, APP6 = "fd88::3", "fd88::2"
METADATA_ADDRESSES = ("169.254.169.254", "169.254.170.2", "169.254.170.23", "fd00:ec2::254", "fd00:ec2::23")
TRAP = "http://127.0.0.1:3128"
PROXIES = dict.fromkeys(("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"), TRAP)
"""All variables in which a client may look for a proxy."""
START, END = "/the-client-starts", "/the-client-ended"
"""Paths that mark the log of a mock. A mock logs after its answer, so the last lines may be late: END follows them."""
COMMON = {
    "PATH": f"{PROGRAMS}/shadow:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "HOME": "/nonexistent",
    # Longer than the SDKs' default of one second, for a busy machine.
    "AWS_METADATA_SERVICE_TIMEOUT": "30",
    "AWS_METADATA_SERVICE_NUM_ATTEMPTS": "2",
    "GCE_METADATA_TIMEOUT": "30",
}
"""The environment of every client, without the machine's profile, proxy and credentials."""
REQUEST = re.compile(r"(GET|PUT|HEAD|POST) (/\S*)(?: HTTP/1\.[01]\S*)? (\d{3})\b")
"""A request in a log line of the development mock, and of werkzeug, which moto's server uses."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one run of a client.

    ``printed`` is its JSON, ``asked`` the requests in the mock's log (method, target, status), ``trapped`` those to the
    proxy.
    """

    printed: dict[str, Any]
    asked: list[str]
    trapped: list[str]
    stderr: str


def expect(case: Case, outcome: Outcome) -> None:
    """Fail unless the client printed the mock's values, and the mock logged the expected requests and no refusal."""
    assert outcome.printed, outcome.stderr
    assert {**outcome.printed, **case.printed} == outcome.printed
    rest = iter(outcome.asked)
    assert [start for start in case.asked if not any(line.startswith(start) for line in rest)] == [], outcome.asked
    assert [line for line in outcome.asked if not line.endswith(" 200")] == []


class Place(Network):
    """A network with both IP versions, in which only the mock answers metadata requests.

    The metadata addresses are on the host of the app's default route, where nothing listens on port 80. Without
    imds-detour, a client's connection is refused at once.
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
        """Start a mock. Its first line says that it listens, and the others are its log."""
        self._served_at = MOCK if host is None or host is self.mock else "127.0.0.1"
        self._log = self.start(host or self.mock, *command)

    def run(self, *command: str, environ: Mapping[str, str], **settings: str) -> Outcome:
        """Run a client as the app of imds-detour, with these variables and those of all clients."""
        return self._outcome(*self._with_detour(*command, **settings), environ)

    def alone(self, *command: str, environ: Mapping[str, str]) -> Outcome:
        """Run a client without imds-detour."""
        return self._outcome(command, {}, environ)

    def first_trapped(self, *command: str, environ: Mapping[str, str], **settings: str) -> str:
        """Run a client with imds-detour until its first request to the proxy. Return that, or an empty string."""
        line, more = self._with_detour(*command, **settings)
        client = self.app.popen(
            *line, environ={**COMMON, **environ, **more}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._stack.callback(client.kill)

        def mark_the_end() -> None:
            client.wait()
            self._mark_trap()

        ended = threading.Thread(target=mark_the_end)
        ended.start()
        first = next(self._trap_lines())
        client.kill()
        ended.join()
        return "" if END in first else first

    def _with_detour(self, *command: str, **settings: str) -> tuple[tuple[str, ...], dict[str, str]]:
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
            request = REQUEST.search(line)
            if request and request[2] == END:
                return asked
            if request and request[2] == START:
                asked.clear()
            elif request:
                asked.append(" ".join(request.groups()))
        raise AssertionError("the mock has ended")

    def _trapped(self) -> list[str]:
        self._mark_trap()
        return list(itertools.takewhile(lambda line: END not in line, self._trap_lines()))

    def _mark_trap(self) -> None:
        self.app.run("curl", "-sS", "--output", "/dev/null", f"{TRAP}{END}")

    def _trap_lines(self) -> Iterator[str]:
        assert self._trap.stdout is not None
        return (line.rstrip("\n") for line in self._trap.stdout)
