"""Start programs on the app's host and measure them: ``python bench/stopwatch.py``.

It runs on that host, so no nsenter is part of a measurement. Each line of input is a command, a JSON object:

    {"do": "run", "argv": [...], "environ": {...}}   start and wait; the answer is the result
    {"do": "start", ...}                             start; the answer is {"started": nanoseconds}
    {"do": "wait"}                                   wait for the started program
    {"do": "stop"}                                   send SIGTERM to it, or to its PID 1, and wait
    {"do": "reset"}                                  remove all firewall rules and imds-detour's routes

The result: ``started`` and ``ended`` (nanoseconds, monotonic), ``app`` (when the app started, or null), ``cpu``
(nanoseconds of it and its children), ``rss`` (KiB of its largest process), ``status``, ``lines`` (its stderr, each line
with its time), ``stopped`` (when SIGTERM was sent).
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import Any

NOTHING = "*filter\nCOMMIT\n*nat\nCOMMIT\n"
GRACE = 10.0
"""Seconds from SIGTERM to SIGKILL, as for docker stop."""


class Run:
    """A running program."""

    def __init__(self, argv: list[str], environ: dict[str, str]) -> None:
        self._out, out = os.pipe()
        self._err, err = os.pipe()
        actions = [(os.POSIX_SPAWN_DUP2, out, 1), (os.POSIX_SPAWN_DUP2, err, 2)]
        self.started = time.monotonic_ns()
        self.pid = os.posix_spawnp(argv[0], argv, environ, file_actions=actions)
        os.close(out)
        os.close(err)
        self._stopped: int | None = None

    def stop(self) -> None:
        """Send SIGTERM to the process, or to the first process of its namespace."""
        with open(f"/proc/{self.pid}/comm") as comm:
            holder = comm.read().strip() == "unshare"
        if holder:
            with open(f"/proc/{self.pid}/task/{self.pid}/children") as children:
                self._first = int(children.read().split()[0])
        else:
            self._first = self.pid
        self._stopped = time.monotonic_ns()
        os.kill(self._first, signal.SIGTERM)

    def wait(self) -> dict[str, Any]:
        """Wait for the end of its output and its process, and return the result."""
        received: dict[int, list[tuple[int, bytes]]] = {self._out: [], self._err: []}
        with selectors.DefaultSelector() as ready:
            for stream in received:
                ready.register(stream, selectors.EVENT_READ)
            while ready.get_map():
                overdue = self._stopped is not None and time.monotonic_ns() > self._stopped + GRACE * 1e9
                if overdue:
                    with suppress(ProcessLookupError):
                        os.kill(self._first, signal.SIGKILL)
                for key, _ in ready.select(0.05 if self._stopped else None):
                    data = os.read(key.fd, 65_536)
                    received[key.fd].append((time.monotonic_ns(), data))
                    if not data:
                        ready.unregister(key.fd)
                        os.close(key.fd)
        _, status, used = os.wait4(self.pid, 0)
        out = b"".join(data for _, data in received[self._out]).split()
        return {
            "started": self.started,
            "ended": time.monotonic_ns(),
            "app": int(out[-1]) if out and out[-1].isdigit() else None,
            "cpu": int((used.ru_utime + used.ru_stime) * 1e9),
            "rss": used.ru_maxrss,
            "status": os.waitstatus_to_exitcode(status),
            "lines": [
                (when, line)
                for when, data in received[self._err]
                for line in data.decode(errors="replace").splitlines()
            ],
            "stopped": self._stopped,
        }


def reset() -> None:
    """Remove all firewall rules and imds-detour's routes from this network namespace."""
    for command in ("iptables-legacy-restore", "ip6tables-legacy-restore"):
        subprocess.run([command], input=NOTHING, text=True, check=False, stderr=subprocess.DEVNULL)
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    for version in ("-4", "-6"):
        subprocess.run(["ip", version, "route", "flush", "proto", "169"], check=False, stderr=subprocess.DEVNULL)


def main() -> None:
    """Run commands until the input ends."""
    running: Run | None = None
    for line in sys.stdin:
        command = json.loads(line)
        answer: dict[str, Any] = {}
        if command["do"] in ("run", "start"):
            running = Run(command["argv"], command["environ"])
            answer = {"started": running.started}
        if command["do"] == "stop":
            assert running is not None
            running.stop()
        if command["do"] in ("run", "wait", "stop"):
            assert running is not None
            answer = running.wait()
        if command["do"] == "reset":
            reset()
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
