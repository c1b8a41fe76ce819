"""Paths from an app to the mock: direct and with the redirect, with and without Docker's conntrack rules."""

from __future__ import annotations

import os
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from bench.testbed import end
from imds_detour.ctl.lab.hosts import Host, environ, link, start_host

if TYPE_CHECKING:
    from collections.abc import Sequence

METADATA = "169.254.169.254"
PORT = 1338

# Docker's rules for the DNS server of its networks, with which conntrack is active without imds-detour.
DOCKER_DNS = """\
*nat
:DOCKER_OUTPUT - [0:0]
:DOCKER_POSTROUTING - [0:0]
-A OUTPUT -d 127.0.0.11/32 -j DOCKER_OUTPUT
-A POSTROUTING -d 127.0.0.11/32 -j DOCKER_POSTROUTING
-A DOCKER_OUTPUT -d 127.0.0.11/32 -p tcp -m tcp --dport 53 -j DNAT --to-destination 127.0.0.11:40001
-A DOCKER_OUTPUT -d 127.0.0.11/32 -p udp -m udp --dport 53 -j DNAT --to-destination 127.0.0.11:40002
-A DOCKER_POSTROUTING -s 127.0.0.11/32 -p tcp -m tcp --sport 40001 -j SNAT --to-source :53
-A DOCKER_POSTROUTING -s 127.0.0.11/32 -p udp -m udp --sport 40002 -j SNAT --to-source :53
COMMIT
"""


@dataclass(frozen=True, slots=True)
class Path:
    """A path from an app to the mock.

    Attributes:
        backend: the backend of the redirect; empty for the direct path.
        docker: whether Docker's rules are installed too.

    """

    backend: str
    docker: bool

    @property
    def direct(self) -> Path:
        """The path to which this one is compared."""
        return Path("", self.docker)


PATHS = [Path(backend, docker) for docker in (False, True) for backend in ("", "legacy", "nft")]


class Paths:
    """A server's host and a client's host per path, each with its own cable."""

    def __init__(self, detour: str, paths: Sequence[Path] = tuple(PATHS)) -> None:
        """Start all hosts; the installed imds-detour ``detour`` writes the rules."""
        self._stack = ExitStack()
        self.paths = list(paths)
        self.server = self._stack.enter_context(start_host())
        self.clients: list[Host] = []
        for number, path in enumerate(self.paths):
            client = self._stack.enter_context(start_host())
            link(self.server, client, f"eth{number}", f"{self._server(number)}/24", f"10.90.{number}.2/24")
            client.ip("route", "add", "default", "via", self._server(number))
            client.run("sh", "-c", "echo 1024 65000 > /proc/sys/net/ipv4/ip_local_port_range")
            if path.docker:
                subprocess.run(
                    client.inside("iptables-legacy-restore", "--noflush"), input=DOCKER_DNS, text=True, check=True
                )
            if path.backend:
                settings = environ(MOCK_HOSTNAME=f"{self._server(number)}:{PORT}", MOCK_PROBE="off", MOCK_LOG="quiet")
                client.run(detour, "true", environ={**settings, "MOCK_BACKEND": path.backend})
            self.clients.append(client)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    @staticmethod
    def _server(number: int) -> str:
        return f"10.90.{number}.1"

    def to(self, number: int) -> tuple[str, int]:
        """Return address and port to which the client of a path connects."""
        return (METADATA, 80) if self.paths[number].backend else (self._server(number), PORT)

    def serve(self, *command: str) -> subprocess.Popen[str]:
        """Start a server on the server's host; its first line says that it listens."""
        process = self.server.popen(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self._stack.callback(end, process)
        assert process.stdout is not None
        process.stdout.readline()
        self._serving = process.pid
        return process

    def work(self, number: int, *command: str) -> tuple[str, float]:
        """Run a client on its path; return its output and the seconds of processor time of client and server."""
        before = _on_processor(self._serving)
        client = self.clients[number].popen(*command, stdout=subprocess.PIPE)
        assert client.stdout is not None
        output = client.stdout.read()
        _, status, used = os.wait4(client.pid, 0)
        client.returncode = os.waitstatus_to_exitcode(status)
        client.stdout.close()
        if client.returncode:
            raise subprocess.CalledProcessError(client.returncode, command, output)
        return output, used.ru_utime + used.ru_stime + _on_processor(self._serving) - before

    def cost(self, program: str, mode: str, rounds: int, batches: int) -> list[list[float]]:
        """Return nanoseconds of processor time per round trip, a list for each path (pathcost.c)."""
        ends = [
            f"{client.pid}={':'.join(map(str, self.to(number)))}={self._server(number)}"
            for number, client in enumerate(self.clients)
        ]
        done = subprocess.run(
            [program, mode, str(rounds), str(batches), str(self.server.pid), str(PORT), *ends],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        lines = [list(map(float, line.split())) for line in done.stdout.splitlines()]
        return [list(column) for column in zip(*lines, strict=True)]


def _on_processor(pid: int) -> float:
    """Return the seconds of processor time of a single-threaded process (proc(5), schedstat)."""
    with open(f"/proc/{pid}/schedstat") as spent:
        return int(spent.read().split()[0]) / 1e9
