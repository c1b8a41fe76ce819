"""A stop signal during the start of the interpreter is not lost."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.hosts.network import MOCK, SETTINGS, Network
from tests.support.judges.processes import children

pytestmark = pytest.mark.slow

STOPS = (
    *(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2),
    *(signal.SIGRTMIN, signal.SIGRTMIN + 3, signal.SIGRTMAX),
)
PID_1 = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--")
WAITING = {**SETTINGS, "MOCK_HOSTNAME": MOCK, "MOCK_PORT": "7", "MOCK_LOG": "debug", "MOCK_TIMEOUT": "60"}
"""Settings without a mock, so the start waits until it is stopped."""
INSTALLED = f"{os.path.dirname(sys.executable)}/imds-detour"


@contextmanager
def as_pid_1(network: Network, *command: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Start a command as process 1 of a pid namespace, and yield its id in this namespace."""
    with network.app.popen(*PID_1, *command, environ=WAITING, stderr=subprocess.PIPE) as process:
        try:
            while not (pids := children(process.pid)):
                pass
            yield process, pids[0]
        finally:
            process.kill()


def masks(number: int) -> dict[str, int]:
    """Return a process's signal masks: SigBlk, SigIgn, SigCgt."""
    with open(f"/proc/{number}/status") as file:
        return {line[:6]: int(line[7:], 16) for line in file if line.startswith("Sig") and line[6] == ":"}


def wait_for_launcher(number: int) -> None:
    """Watch a process without pauses until the launcher blocks all stop signals; unshare blocks fewer."""
    while not ((mask := masks(number))["SigBlk"] | mask["SigCgt"]) & bit(signal.SIGUSR1):
        pass


def bit(number: int) -> int:
    """Return a signal's bit in a mask."""
    return 1 << (number - 1)


MOCK_COMMAND = ("imds-detourctl", "mock", "--listen", "127.0.0.1:8338")
MOMENTS = [(("imds-detour", "true"), number, delay) for number in STOPS for delay in (0, 1, 2, 4, 8, 16)]


@pytest.mark.parametrize(("command", "number", "milliseconds"), [*MOMENTS, (MOCK_COMMAND, signal.SIGTERM, 0)])
def test_stop_during_the_start_ends_pid_1(
    running: Network, bundle: str, command: tuple[str, ...], number: int, milliseconds: int
) -> None:
    """A stop signal at any moment of the start ends process 1, imds-detour or imds-detourctl, with status 128+n."""
    with as_pid_1(running, f"{bundle}/bin/{command[0]}", *command[1:]) as (process, target):
        wait_for_launcher(target)
        time.sleep(milliseconds / 1000)
        os.kill(target, number)
        assert process.wait(timeout=30) == 128 + number


def test_stop_without_the_launcher_is_lost(running: Network) -> None:
    """Negative control: a pip install has no launcher, and process 1 ignores an early stop signal."""
    for _ in range(20):
        with as_pid_1(running, INSTALLED, "true") as (process, target):
            while os.readlink(f"/proc/{target}/exe").endswith("/unshare"):
                pass
            os.kill(target, signal.SIGTERM)
            early = not masks(target)["SigCgt"] & bit(signal.SIGTERM)
            if not early:
                continue  # the signal came too late
            assert process.stderr is not None
            assert process.stderr.readline(), "it ended"
            assert process.poll() is None
            return
    pytest.fail("the signal never came early enough")
