"""Many starts at once, each in a network namespace of its own, against one mock."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import ExitStack

from bench import subjects
from bench.ground import HERE, NAME, PORT, end, without_ipv6
from bench.rows import Row, row
from imds_detour.ctl.lab import Host, environ

SERVER = "10.89.0.1"
GATE = 'read -r _ && exec "$@"'
"""Holds each start back until its input says go."""


def measure(sizes: tuple[int, ...]) -> list[Row]:
    """Return the rows, one for each size of the crowd."""
    rows = []
    subject = subjects.ours()[-1]  # the bundle where it is there
    with ExitStack() as stack:
        mock = stack.enter_context(Host())
        mock.ip("link", "add", "bridge", "type", "bridge")
        mock.ip("address", "add", f"{SERVER}/16", "dev", "bridge")
        mock.ip("link", "set", "bridge", "up")
        server = mock.popen(
            sys.executable,
            f"{HERE}/latecomer.py",
            SERVER,
            NAME,
            str(PORT),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        stack.callback(end, server)
        assert server.stdout is not None
        server.stdout.readline()
        apps = [_app(stack, mock, number) for number in range(max(sizes))]
        first: float | None = None
        for size in sizes:
            _ask(server, "count")
            seconds, failed = _start(apps[:size], subject)
            questions = int(_ask(server, "count")) / size
            first = first or seconds / size
            rows += [
                row(f"{size} starts at once", f"{subject.name}: failed", "", [float(failed)], at_most=0),
                row(f"{size} starts at once", f"{subject.name}: until the last one's exec", "ms", [seconds * 1000]),
                row(
                    f"{size} starts at once",
                    f"{subject.name}: time of one, over that among {sizes[0]}",
                    "",
                    [round(seconds / size / first, 2)],
                    at_most=1.25,  # linear, and a machine that is busy with something else meanwhile
                ),
                row(f"{size} starts at once", f"{subject.name}: DNS questions of one", "", [questions], at_most=2),
            ]
            for app in apps[:size]:
                app.run("sh", "-c", "printf '*filter\\nCOMMIT\\n*nat\\nCOMMIT\\n' | iptables-legacy-restore")
    return rows


def _app(stack: ExitStack, mock: Host, number: int) -> Host:
    host = stack.enter_context(Host(nameservers=(SERVER,)))
    port = f"p{number}"
    mock.ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", str(host.pid))
    mock.ip("link", "set", port, "master", "bridge", "up")
    without_ipv6(host)
    host.ip("address", "add", f"10.89.{1 + number // 250}.{1 + number % 250}/16", "dev", "eth0")
    host.ip("link", "set", "eth0", "up")
    host.ip("route", "add", "default", "via", SERVER)
    return host


def _start(apps: list[Host], subject: subjects.Subject) -> tuple[float, int]:
    """Return the seconds from the word go to the last app, and how many never started."""
    settings = environ(MOCK_HOSTNAME=NAME, MOCK_PORT=str(PORT), MOCK_TIMEOUT="120", MOCK_LOG="quiet")
    command = ["sh", "-c", GATE, "gate", *subject.command([subjects.tool("stamp")])]
    waiting = [app.popen(*command, environ=settings, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for app in apps]
    time.sleep(0.5)  # every shell is at its gate by then; one that is late is only later
    go = time.monotonic_ns()
    for start in waiting:
        assert start.stdin is not None
        start.stdin.write("go\n")
        start.stdin.flush()
    said = [start.communicate()[0].split() for start in waiting]
    stamps = [int(words[-1]) for words in said if words]
    return (max(stamps, default=go) - go) / 1e9, len(apps) - len(stamps)


def _ask(server: subprocess.Popen[str], command: str) -> str:
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(command + "\n")
    server.stdin.flush()
    return server.stdout.readline()
