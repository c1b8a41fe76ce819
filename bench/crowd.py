"""Many starts at once, each in its own network namespace, with one mock."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import ExitStack

from bench import subjects
from bench.rows import Row, row
from bench.testbed import HERE, NAME, PORT, disable_ipv6, end
from imds_detour.ctl.lab.hosts import Host, environ, start_host

SERVER = "10.89.0.1"
GATE = 'read -r _ && exec "$@"'
"""Delay each start until its input has a line."""


def measure(sizes: tuple[int, ...], rounds: int) -> list[Row]:
    """Return the rows for each size of the crowd; the sizes take turns."""
    rows = []
    subject = subjects.detours()[-1]  # the bundle, if it is built
    with ExitStack() as stack:
        mock = stack.enter_context(start_host())
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
        seconds: dict[int, list[float]] = {size: [] for size in sizes}
        failed = dict.fromkeys(sizes, 0)
        questions: dict[int, list[float]] = {size: [] for size in sizes}
        used = 0
        for _ in range(rounds):
            for size in sizes:
                for app in apps[: min(size, used)]:
                    app.run("sh", "-c", "printf '*filter\\nCOMMIT\\n*nat\\nCOMMIT\\n' | iptables-legacy-restore")
                used = max(size, used)
                _ask(server, "count")
                took, missing = _start(apps[:size], subject)
                questions[size].append(int(_ask(server, "count")) / size)
                seconds[size].append(took)
                failed[size] += missing
        for size in sizes:
            group = f"{size} starts at once"
            paired = zip(seconds[size], seconds[sizes[0]], strict=True)
            times = [own / size / (first / sizes[0]) for own, first in paired]
            rows += [
                row(group, f"{subject.name}: failed, of all runs", "", [float(failed[size])], at_most=0),
                row(
                    group, f"{subject.name}: until the last one's exec", "ms", [value * 1000 for value in seconds[size]]
                ),
                # Linear, with an allowance for other load on the machine.
                row(group, f"{subject.name}: time of one, over that among {sizes[0]}", "", times, at_most=1.25),
                row(group, f"{subject.name}: DNS questions of one", "", questions[size], at_most=2),
            ]
    return rows


def _app(stack: ExitStack, mock: Host, number: int) -> Host:
    host = stack.enter_context(start_host(nameservers=(SERVER,)))
    port = f"p{number}"
    mock.ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", str(host.pid))
    mock.ip("link", "set", port, "master", "bridge", "up")
    disable_ipv6(host)
    host.ip("address", "add", f"10.89.{1 + number // 250}.{1 + number % 250}/16", "dev", "eth0")
    host.ip("link", "set", "eth0", "up")
    host.ip("route", "add", "default", "via", SERVER)
    return host


def _start(apps: list[Host], subject: subjects.Subject) -> tuple[float, int]:
    """Return the seconds until the last app started, and the number of apps that never did."""
    settings = environ(MOCK_HOSTNAME=NAME, MOCK_PORT=str(PORT), MOCK_TIMEOUT="120", MOCK_LOG="quiet")
    command = ["sh", "-c", GATE, "gate", *subject.command([subjects.tool("stamp")])]
    waiting = [app.popen(*command, environ=settings, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for app in apps]
    time.sleep(0.5)  # every shell is waiting by then
    go = time.monotonic_ns()
    for start in waiting:
        assert start.stdin is not None
        start.stdin.write("go\n")
        start.stdin.flush()
    output = [start.communicate()[0].split() for start in waiting]
    stamps = [int(words[-1]) for words in output if words]
    return (max(stamps, default=go) - go) / 1e9, len(apps) - len(stamps)


def _ask(server: subprocess.Popen[str], command: str) -> str:
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(command + "\n")
    server.stdin.flush()
    return server.stdout.readline()
