"""The sidecar: what it holds in memory, what it costs while nothing happens, how soon it follows its mock."""

from __future__ import annotations

import os
import signal
import subprocess
import time

from bench import subjects
from bench.ground import MOCK, NAME, PORT, Ground
from bench.rows import Row, row
from imds_detour.ctl.lab.hosts import environ

ORDINARY = 30
"""Seconds for which answers hold while nothing happens: what Kubernetes' DNS gives; Docker's gives 600."""
OTHER = "10.88.0.4"
"""The mock's other address."""


def measure(*, idle: float, moves: int) -> list[Row]:
    """Return the rows: ``idle`` is for how many seconds nothing shall happen, ``moves`` how often the mock moves then.

    The mock is asked every five seconds; the name is looked up when its answer runs out, after a second where it moves.
    """
    rows = []
    for subject in subjects.ours():
        program = os.path.join(os.path.dirname(subject.argv[0]), "imds-detourctl")
        with Ground() as ground:
            ground.mock.ip("address", "add", f"{OTHER}/24", "dev", "eth0")
            settings = environ(MOCK_HOSTNAME=NAME, MOCK_PORT=str(PORT))
            ground.tell(f"ttl {ORDINARY}")
            started = ground.app.popen(program, "sidecar", environ=settings, stderr=subprocess.PIPE)
            try:
                _hear(started, f"({MOCK}:{PORT})")
                before = _spent(started.pid)
                time.sleep(idle)  # what is measured is what happens when nothing does
                share = (_spent(started.pid) - before) / 1e9 / idle * 100
                memory = _memory(started.pid) / 1024
                ground.tell("ttl 1")
                started.send_signal(signal.SIGHUP)  # look again now
                late = [_move(ground, started, (OTHER, MOCK)[turn % 2]) for turn in range(moves)]
            finally:
                started.send_signal(signal.SIGTERM)
                started.communicate()
        rows += [
            row("sidecar: memory", subject.name, "MiB", [memory], at_most=25),
            row("sidecar: processor while idle", subject.name, "%", [share], at_most=0.1),
            row("sidecar: DNS changed to verified", subject.name, "ms", late, at_most=1000),
        ]
    return rows


def _move(ground: Ground, started: subprocess.Popen[str], address: str) -> float:
    """Let the name lead elsewhere at some moment of its second, and return the ms until the sidecar has followed."""
    time.sleep(1 + os.urandom(1)[0] / 256)
    changed = ground.tell(f"lead {address}")
    return (_hear(started, f"({address}:{PORT})") - changed) / 1e6


def _hear(started: subprocess.Popen[str], where: str) -> int:
    """Wait until it says that what is there is verified; return when, in nanoseconds of the monotonic clock."""
    assert started.stderr is not None
    for line in started.stderr:
        if where in line and "verified" in line:
            return time.monotonic_ns()
    raise RuntimeError(f"the sidecar has ended: {started.wait()}")


def _spent(pid: int) -> int:
    """Return the nanoseconds that a process has run (proc(5), schedstat)."""
    with open(f"/proc/{pid}/schedstat") as schedstat:
        return int(schedstat.read().split()[0])


def _memory(pid: int) -> int:
    """Return the KiB that a process holds in memory."""
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
