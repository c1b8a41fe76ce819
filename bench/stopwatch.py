"""Starts programs on the app's host and says how long they took, one command a line: ``python bench/stopwatch.py``.

It lives in there, so that no nsenter is part of what it measures. A command is an object of JSON:

    {"do": "run", "argv": [...], "environ": {...}}   start and wait; answers with what came of it
    {"do": "start", ...}                             start only; answers with {"started": nanoseconds}
    {"do": "wait"}                                   wait for what was started
    {"do": "stop"}                                   send SIGTERM to it, or to the PID 1 that it holds, and wait
    {"do": "reset"}                                  take every firewall rule and every route of ours out

What came of it: ``started`` and ``ended`` (nanoseconds, monotonic), ``app`` (when the app started, or null), ``cpu``
(nanoseconds of it and its children), ``rss`` (KiB, of its largest process), ``status``, ``lines`` (its stderr, each
line with the time of its arrival), ``stopped`` (when SIGTERM was sent).
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
"""Seconds after SIGTERM until SIGKILL, as docker stop has it."""


class Run:
    """A program at work."""

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
        """Send SIGTERM: to the process itself, or to the one that it holds in a process namespace."""
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
        """Wait for its end, or rather for the end of its output, and return what came of it."""
        said: dict[int, list[tuple[int, bytes]]] = {self._out: [], self._err: []}
        with selectors.DefaultSelector() as ready:
            for stream in said:
                ready.register(stream, selectors.EVENT_READ)
            while ready.get_map():
                over = self._stopped is not None and time.monotonic_ns() > self._stopped + GRACE * 1e9
                if over:
                    with suppress(ProcessLookupError):
                        os.kill(self._first, signal.SIGKILL)
                for key, _ in ready.select(0.05 if self._stopped else None):
                    data = os.read(key.fd, 65_536)
                    said[key.fd].append((time.monotonic_ns(), data))
                    if not data:
                        ready.unregister(key.fd)
                        os.close(key.fd)
        _, status, used = os.wait4(self.pid, 0)
        out = b"".join(data for _, data in said[self._out]).split()
        return {
            "started": self.started,
            "ended": time.monotonic_ns(),
            "app": int(out[-1]) if out and out[-1].isdigit() else None,
            "cpu": int((used.ru_utime + used.ru_stime) * 1e9),
            "rss": used.ru_maxrss,
            "status": os.waitstatus_to_exitcode(status),
            "lines": [
                (when, line) for when, data in said[self._err] for line in data.decode(errors="replace").splitlines()
            ],
            "stopped": self._stopped,
        }


def reset() -> None:
    """Take every firewall rule and every route of ours out of this network namespace."""
    for command in ("iptables-legacy-restore", "ip6tables-legacy-restore"):
        subprocess.run([command], input=NOTHING, text=True, check=False, stderr=subprocess.DEVNULL)
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    for version in ("-4", "-6"):
        subprocess.run(["ip", version, "route", "flush", "proto", "169"], check=False, stderr=subprocess.DEVNULL)


def main() -> None:
    """Follow commands until there are no more."""
    at_work: Run | None = None
    for line in sys.stdin:
        command = json.loads(line)
        answer: dict[str, Any] = {}
        if command["do"] in ("run", "start"):
            at_work = Run(command["argv"], command["environ"])
            answer = {"started": at_work.started}
        if command["do"] == "stop":
            assert at_work is not None
            at_work.stop()
        if command["do"] in ("run", "wait", "stop"):
            assert at_work is not None
            answer = at_work.wait()
        if command["do"] == "reset":
            reset()
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
