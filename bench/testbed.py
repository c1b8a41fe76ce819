"""The hosts of the benchmarks: one with the mock and its DNS server, one with the app and a stopwatch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from imds_detour.ctl.lab.hosts import Host, environ, link, start_host

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.subjects import Subject

HERE = os.path.dirname(os.path.abspath(__file__))
MOCK, APP, NAME, PORT = "10.88.0.3", "10.88.0.2", "mock_metadata", 1338


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a start; times are in nanoseconds of the monotonic clock.

    Attributes:
        started: when it was started.
        ended: when it ended.
        app: when the app's first instruction ran; None if it never did.
        cpu: processor time of the program and its children.
        rss: KiB of the largest process.
        status: its exit status.
        lines: its stderr, each line with its time.
        stopped: when SIGTERM was sent, if it was.

    """

    started: int
    ended: int
    app: int | None
    cpu: int
    rss: int
    status: int
    lines: list[tuple[int, str]]
    stopped: int | None

    def to_exec(self, since: int | None = None) -> float:
        """Return the milliseconds from the start, or from ``since``, to the app.

        Raises:
            RuntimeError: when the app never started, since a failure would look fast.

        """
        if self.app is None or self.status:
            raise RuntimeError(f"the app did not start ({self.status}): {self.lines}")
        return (self.app - (self.started if since is None else since)) / 1e6


class Testbed:
    """Two hosts on a network like Docker's default, without IPv6 unless asked for."""

    def __init__(self, *, ipv6: bool = False) -> None:
        self._stack = ExitStack()
        self.mock = self._stack.enter_context(start_host())
        self.app = self._stack.enter_context(start_host(nameservers=(MOCK,)))
        link(self.mock, self.app, "eth0", f"{MOCK}/24", f"{APP}/24")
        self.app.ip("route", "add", "default", "via", MOCK)
        if not ipv6:
            disable_ipv6(self.app)
        self._server = self._program(self.mock, "latecomer.py", MOCK, NAME, str(PORT))
        assert self._server.stdout is not None
        assert self._server.stdout.readline() == "ready\n"
        self._watch = self._program(self.app, "stopwatch.py")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    def _program(self, host: Host, script: str, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, os.path.join(HERE, script), *arguments]
        program = host.popen(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._stack.callback(end, program)
        return program

    def command(self, command: str) -> int:
        """Send the mock's host a command (latecomer.py) and return its answer."""
        return int(_ask(self._server, command))

    def reset(self) -> None:
        """Remove all rules from the app's host."""
        self._do("reset")

    def run(self, subject: Subject, app: Sequence[str], **settings: str) -> Outcome:
        """Start the subject with an app, and wait for the end of both."""
        return Outcome(**self._do("run", argv=subject.command(app), environ=self._environ(subject, settings)))

    def start(self, subject: Subject, app: Sequence[str], *, first: bool = False, **settings: str) -> int:
        """Start the subject, as PID 1 of a new namespace if asked, and return the time in nanoseconds."""
        holder = ["unshare", "--pid", "--fork", "--kill-child", "--"] if first else []
        answer = self._do("start", argv=[*holder, *subject.command(app)], environ=self._environ(subject, settings))
        return int(answer["started"])

    def wait(self) -> Outcome:
        """Wait for the end of the started program."""
        return Outcome(**self._do("wait"))

    def stop(self) -> Outcome:
        """Send SIGTERM to the started program, as docker stop does, and wait for its end."""
        return Outcome(**self._do("stop"))

    def _environ(self, subject: Subject, settings: dict[str, str]) -> dict[str, str]:
        required = {"MOCK_HOSTNAME": NAME, "MOCK_PORT": str(PORT), "IPTABLES": "iptables-legacy"}
        return environ(**(required | dict(subject.settings) | settings))

    def _do(self, what: str, **details: object) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(_ask(self._watch, json.dumps({"do": what, **details})))
        return answer


def disable_ipv6(host: Host) -> None:
    """Disable IPv6 on a host, as Docker does on a network without it."""
    script = "for i in all default lo; do echo 1 > /proc/sys/net/ipv6/conf/$i/disable_ipv6; done"
    host.run("sh", "-c", f"[ ! -d /proc/sys/net/ipv6 ] || {{ {script}; }}")


def end(program: subprocess.Popen[str]) -> None:
    """End a program and close its pipes."""
    program.kill()
    program.communicate()


def _ask(program: subprocess.Popen[str], line: str) -> str:
    assert program.stdin is not None
    assert program.stdout is not None
    program.stdin.write(line + "\n")
    program.stdin.flush()
    return program.stdout.readline()
