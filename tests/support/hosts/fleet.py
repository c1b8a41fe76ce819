"""Many pods that start at once on one network with one mock. As a program it prints a table.

Run it in a sandbox:

    .venv/bin/python -m imds_detour.ctl.lab.sandbox .venv/bin/python -m tests.support.hosts.fleet 50 100 200
"""

import os
import queue
import re
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface
from typing import Self

from imds_detour.ctl.lab.hosts import environ, start_host
from tests.support.hosts.network import CTL, DETOUR, FAULTY_DNS, NAME, PORT

HUB = IPv4Interface("10.77.0.1/16")
FIRST_POD = IPv4Address("10.77.1.0")
LATE = 20.0
"""Seconds after which the mock appears, in the table's first line."""
REQUEST = re.compile(r" (10\.77\.\d+\.\d+)\S* (?:GET|PUT) ")
"""A request in the mock's log, with the client's address."""
AT_THE_GATE = 'read -r _; exec "$@"'
"""Wait for the end of the input, which all pods share, so that closing it starts all of them."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a fleet's start.

    Attributes:
        verified: the number of pods that verified the mock and ran their app.
        seconds: from the opening of the gate to the end of the last pod.
        cpu: seconds of processor time per pod, with nsenter and the app (``true``).
        peak: megabytes of the largest process.
        queries: DNS questions per pod.
        requests: HTTP requests at the mock per pod.
        arrivals: seconds from the start of the mock, or the opening of the gate, to each pod's first request.

    """

    pods: int
    verified: int
    seconds: float
    cpu: float
    peak: float
    queries: float
    requests: float
    arrivals: tuple[float, ...]

    def busiest(self, window: float) -> float:
        """Return the largest share of the pods that arrived within ``window`` seconds."""
        fullest = max(sum(start <= other < start + window for other in self.arrivals) for start in self.arrivals)
        return fullest / self.pods


class Listener:
    """A server's output lines with their times."""

    def __init__(self, server: subprocess.Popen[str]) -> None:
        self._server = server
        self._lines: queue.SimpleQueue[tuple[float, str]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        assert self._server.stdout is not None
        for line in self._server.stdout:
            self._lines.put((time.monotonic(), line.rstrip("\n")))

    def end(self) -> list[tuple[float, str]]:
        """End the server and return its output."""
        self._server.terminate()
        self._server.wait()
        self._thread.join()
        assert self._server.stdout is not None
        self._server.stdout.close()
        return [self._lines.get() for _ in range(self._lines.qsize())]


class Fleet:
    """A hub with mock and DNS server, and the given number of pods."""

    def __init__(self, pods: int) -> None:
        """Make the hosts and join them by a bridge."""
        self._stack = ExitStack()
        self.hub = self._stack.enter_context(start_host())
        self.pods = [self._stack.enter_context(start_host(nameservers=(str(HUB.ip),))) for _ in range(pods)]
        cables = [
            f"link add p{number} type veth peer name eth0 netns {pod.pid}\nlink set p{number} master hub up\n"
            for number, pod in enumerate(self.pods)
        ]
        bridge = f"link add hub type bridge\naddress add {HUB} dev hub\nlink set hub up\n"
        subprocess.run(self.hub.inside("ip", "-batch", "-"), input=bridge + "".join(cables), text=True, check=True)
        for number, pod in enumerate(self.pods):
            address = IPv4Interface((FIRST_POD + number, HUB.network.prefixlen))
            pod.run("sh", "-c", f"ip address add {address} dev eth0 && ip link set eth0 up")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    def start(self, mock_after: float | None = None, **settings: str) -> Outcome:
        """Start all pods at once. The mock is running, or starts ``mock_after`` seconds later."""
        dns = Listener(self._server(sys.executable, FAULTY_DNS, str(HUB.ip), f"{NAME}={HUB.ip}"))
        mock = None if mock_after is not None else self._mock()
        wanted = {"MOCK_HOSTNAME": NAME, "MOCK_PORT": PORT, "MOCK_TIMEOUT": "120", "MOCK_LOG": "quiet", **settings}
        reader, writer = os.pipe()
        command = ("sh", "-c", AT_THE_GATE, "gate", DETOUR, "true")
        fleet = [pod.popen(*command, environ=environ(**wanted), stdin=reader) for pod in self.pods]
        os.close(reader)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = opened = time.monotonic()
        os.close(writer)
        if mock is None:
            time.sleep(mock_after or 0)  # the measured wait
            opened, mock = time.monotonic(), self._mock()
        verified = sum(process.wait() == 0 for process in fleet)
        seconds = time.monotonic() - began
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        requests = [(at, said[1]) for at, line in mock.end() if (said := REQUEST.search(line))]
        first: dict[str, float] = {}
        for at, pod in requests:
            first.setdefault(pod, at - opened)
        used = (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)
        asked = sum(line.startswith(("udp", "tcp")) for _, line in dns.end())
        count = len(self.pods)
        return Outcome(
            pods=count,
            verified=verified,
            seconds=seconds,
            cpu=used / count,
            peak=after.ru_maxrss / 1024,
            queries=asked / count,
            requests=len(requests) / count,
            arrivals=tuple(sorted(first.values())),
        )

    def _mock(self) -> Listener:
        return Listener(self._server(CTL, "mock", "--listen", f"0.0.0.0:{PORT}"))

    def _server(self, *command: str) -> subprocess.Popen[str]:
        server = self.hub.popen(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        with suppress(PermissionError):  # root only; keep the server fast although the fleet uses all processors
            os.setpriority(os.PRIO_PROCESS, server.pid, -15)
        assert server.stdout is not None
        assert server.stdout.readline(), f"{command} did not start"
        return server


def main(say: Callable[[str], object] = sys.stdout.write) -> None:
    """Start a fleet with a late mock, then fleets of the sizes on the command line with each backend."""
    sizes = [int(size) for size in sys.argv[1:]] or [50, 100, 200]
    say("pods  backend  mock    verified  seconds  CPU ms each  peak MB  DNS each  HTTP each  in the fullest 50 ms\n")
    there = [(size, backend, None) for backend in ("nft", "legacy") for size in sizes]
    for size, backend, late in [(sizes[-1], "nft", LATE), *there]:
        with Fleet(size) as fleet:
            seen = fleet.start(late, MOCK_BACKEND=backend)
        when = "there" if late is None else f"{late:g} s"
        say(
            f"{seen.pods:4}  {backend:7}  {when:6}  {seen.verified:8}  {seen.seconds:7.1f}  {seen.cpu * 1000:11.0f}  "
            f"{seen.peak:7.1f}  {seen.queries:8.2f}  {seen.requests:9.2f}  {seen.busiest(0.05):6.0%}\n"
        )
        sys.stdout.flush()


if __name__ == "__main__":
    main()
