"""The sidecar's memory, processor time while idle, and reaction to a moved mock."""

from __future__ import annotations

import os
import signal
import subprocess
import time

from bench import subjects
from bench.rows import Row, row
from bench.testbed import MOCK, NAME, PORT, Testbed
from imds_detour.ctl.lab.hosts import environ

ORDINARY = 30
"""TTL in seconds while idle, as in Kubernetes; Docker's is 600."""
OTHER = "10.88.0.4"
"""The mock's second address."""


def measure(*, idle: float, moves: int, quick: bool) -> list[Row]:
    """Return the rows, from ``idle`` seconds without changes and then ``moves`` moves of the mock.

    The sidecar asks the mock every five seconds, and looks the name up when its TTL ends, one second during the moves.
    A quick run measures the bundle only.
    """
    rows = []
    for subject in subjects.detours()[-1 if quick else 0 :]:
        program = os.path.join(os.path.dirname(subject.argv[0]), "imds-detourctl")
        with Testbed() as testbed:
            testbed.mock.ip("address", "add", f"{OTHER}/24", "dev", "eth0")
            settings = environ(MOCK_HOSTNAME=NAME, MOCK_PORT=str(PORT))
            testbed.command(f"ttl {ORDINARY}")
            started = testbed.app.popen(program, "sidecar", environ=settings, stderr=subprocess.PIPE)
            try:
                _wait_for_verified(started, f"({MOCK}:{PORT})")
                before = _spent(started.pid)
                time.sleep(idle)  # the measured time
                share = (_spent(started.pid) - before) / 1e9 / idle * 100
                memory = _memory(started.pid) / 1024
                testbed.command("ttl 1")
                started.send_signal(signal.SIGHUP)  # look again now
                late = [_move(testbed, started, (OTHER, MOCK)[turn % 2]) for turn in range(moves)]
            finally:
                started.send_signal(signal.SIGTERM)
                started.communicate()
        rows += [
            row("sidecar: memory", subject.name, "MiB", [memory], at_most=25),
            row("sidecar: processor while idle", subject.name, "%", [share], at_most=0.1),
            row("sidecar: DNS changed to verified", subject.name, "ms", late, at_most=1000),
        ]
    return rows


def _move(testbed: Testbed, started: subprocess.Popen[str], address: str) -> float:
    """Change the name's address at a random moment, and return the ms until the sidecar has followed."""
    time.sleep(1 + os.urandom(1)[0] / 256)
    changed = testbed.command(f"address {address}")
    return (_wait_for_verified(started, f"({address}:{PORT})") - changed) / 1e6


def _wait_for_verified(started: subprocess.Popen[str], where: str) -> int:
    """Wait until the sidecar has verified this address, and return the nanoseconds of the monotonic clock."""
    assert started.stderr is not None
    for line in started.stderr:
        if where in line and "verified" in line:
            return time.monotonic_ns()
    raise RuntimeError(f"the sidecar has ended: {started.wait()}")


def _spent(pid: int) -> int:
    """Return a process's nanoseconds of processor time (proc(5), schedstat)."""
    with open(f"/proc/{pid}/schedstat") as schedstat:
        return int(schedstat.read().split()[0])


def _memory(pid: int) -> int:
    """Return a process's resident memory in KiB."""
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
