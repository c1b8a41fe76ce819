"""A stop signal ends the wait at once, whatever is waited for, as PID 1 and not; after exec it is the app's."""

from __future__ import annotations

import os
import random
import select
import signal
import statistics
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from tests.world import DETOUR, MOCK, NAME, SETTINGS, World

if TYPE_CHECKING:
    from collections.abc import Iterator

STOPS = {
    "SIGTERM": signal.SIGTERM,
    "SIGINT": signal.SIGINT,
    "SIGQUIT": signal.SIGQUIT,
    "SIGHUP": signal.SIGHUP,
    "SIGUSR1": signal.SIGUSR1,
    "SIGUSR2": signal.SIGUSR2,
    "SIGRTMIN+3": signal.SIGRTMIN + 3,
}
PATIENCE = 0.3
"""Seconds from the signal to the end: 0.1 is promised, the rest is for a machine that is busy with other tests."""
PID_1 = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--")
"""Run a command as the first process of a pid namespace; unshare waits outside and passes its end on."""
SETTLED = {"MOCK_LOG": "debug", "MOCK_TIMEOUT": "30"}
delays: dict[str, list[float]] = {}


@pytest.fixture(scope="module")
def waiting() -> Iterator[World]:
    """Give a world where everything can be waited for: silent servers of each kind."""
    with World() as made:
        made.start_dns("silent")
        made.start_faulty("GET=stall", "PUT=stall", port="1338")
        made.mock.run("iptables-legacy", "-A", "INPUT", "-p", "tcp", "--dport", "7777", "-j", "DROP")
        yield made
    for what, seconds in delays.items():
        milliseconds = sorted(1000 * second for second in seconds)
        print(f"{what}: median {statistics.median(milliseconds):.1f} ms, worst {milliseconds[-1]:.1f} ms")  # noqa: T201


WAITS = {
    "silent DNS": {"MOCK_HOSTNAME": NAME},
    "refused port": {"MOCK_HOSTNAME": MOCK, "MOCK_PORT": "7"},
    "stalled HTTP": {"MOCK_HOSTNAME": MOCK, "MOCK_PORT": "1338"},
    "black hole": {"MOCK_HOSTNAME": MOCK, "MOCK_PORT": "7777"},
}


@contextmanager
def started(
    world: World, *command: str, as_pid_1: bool, **settings: str
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Start a command on the app's host and give it, with the number of the process to signal."""
    environ = {**SETTINGS, **settings}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with world.app.popen(*(PID_1 if as_pid_1 else ()), *command, environ=environ, **pipes) as process:
        try:
            yield process, _first_child(process.pid) if as_pid_1 else process.pid
        finally:
            process.kill()


def _first_child(parent: int) -> int:
    while True:
        if children := _children(parent):
            return children[0]
        time.sleep(0.001)


def _children(parent: int) -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and _stat(name)[1:2] == [str(parent)]]


def _stat(name: str) -> list[str]:
    """Return state, parent, ... of a process; nothing when it is gone."""
    try:
        with open(f"/proc/{name}/stat") as file:
            return file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def gone(number: int) -> bool:
    """Whether a process has ended; one that was left to us is reaped on the way."""
    with suppress(ChildProcessError):
        os.waitpid(number, os.WNOHANG)
    return _stat(str(number))[:1] in ([], ["Z"], ["X"])


def read_until(process: subprocess.Popen[str], text: str) -> None:
    """Read stderr up to a line that holds a text."""
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return
    pytest.fail(f"it ended without saying {text!r}")


@pytest.mark.parametrize("as_pid_1", [False, True], ids=["a process", "PID 1"])
@pytest.mark.parametrize("wait", WAITS)
@pytest.mark.parametrize("name", STOPS)
def test_a_stop_while_waiting_is_honoured_at_once(waiting: World, name: str, wait: str, as_pid_1: bool) -> None:
    """Status 128+n within a tenth of a second, no app, nobody left, nothing in the firewall but the guard."""
    number = STOPS[name]
    run = started(waiting, DETOUR, "echo", "started", as_pid_1=as_pid_1, **{**SETTLED, **WAITS[wait]})
    with run as (process, target):
        read_until(process, "guard: ")
        if wait == "refused port" or (wait, name) == ("silent DNS", "SIGTERM"):
            # Between two attempts; or, half a second in, among dnspython's. The others end within libc's look-up.
            read_until(process, "waiting: ")
        helpers = _children(target)
        began = time.monotonic()
        os.kill(target, number)
        status = process.wait(timeout=20)
        delay = time.monotonic() - began
        assert process.stdout is not None
        assert process.stdout.read() == ""
    assert status == 128 + number
    delays.setdefault(wait, []).append(delay)
    assert delay <= PATIENCE
    assert helpers
    deadline = time.monotonic() + 2
    while not all(gone(helper) for helper in helpers):
        assert time.monotonic() < deadline, "the firewall helper outlives its parent"
        time.sleep(0.005)
    assert "DNAT" not in waiting.rules()
    assert {line.split()[1] for line in waiting.ours().splitlines() if line.startswith("-A")} <= {
        "OUTPUT",
        "IMDS_DETOUR_GUARD",
    }


def test_pid_1_without_care_ignores_a_stop(waiting: World) -> None:
    """Negative control: as PID 1, a program that sets no handler does not notice SIGTERM."""
    with started(waiting, "sh", "-c", "echo ready; exec sleep 30", as_pid_1=True) as (process, target):
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        os.kill(target, signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=PATIENCE)


def test_an_ignored_stop_stays_ignored(waiting: World) -> None:
    """What the parent had ignored (nohup) does not stop the wait either; something else does."""
    script = f"trap '' HUP; exec {DETOUR} echo started"
    with started(waiting, "sh", "-c", script, as_pid_1=False, **SETTLED, **WAITS["refused port"]) as (process, target):
        read_until(process, "waiting: ")
        os.kill(target, signal.SIGHUP)
        os.kill(target, signal.SIGTERM)
        assert process.wait(timeout=20) == 128 + signal.SIGTERM


@pytest.fixture(scope="module")
def working() -> Iterator[World]:
    """Give a world where the app starts."""
    with World() as made:
        made.start_mock()
        yield made


APP = "trap 'echo got; exit 0' TERM INT HUP QUIT USR1 USR2 37; echo ready; while :; do read line; done"
"""Says when it is there, and what it got. 37 is SIGRTMIN+3, which dash knows by number alone."""


@pytest.mark.parametrize("as_pid_1", [False, True], ids=["a process", "PID 1"])
@pytest.mark.parametrize("name", STOPS)
def test_after_exec_the_signal_is_the_apps(working: World, name: str, as_pid_1: bool) -> None:
    """Nothing of ours stands between it and whoever sends it."""
    with started(working, DETOUR, "sh", "-c", APP, as_pid_1=as_pid_1) as (process, target):
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        os.kill(target, STOPS[name])
        assert process.stdout.readline() == "got\n"
        assert process.wait(timeout=5) == 0


RUNS = 60
LATEST = 0.4
"""Seconds after the start: some land in the interpreter's own start, most around the exec, some in the app."""


def stop_after(world: World, seconds: float) -> str:
    """Start, stop by SIGTERM after a while, and say how it ended."""
    with started(world, DETOUR, "sh", "-c", APP, as_pid_1=False) as (process, target):
        time.sleep(seconds)
        os.kill(target, signal.SIGTERM)
        try:
            out, _ = process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            return "hung"
    match process.returncode, out:
        case 143, "":
            return "128+15"
        case -15, ("" | "ready\n"):  # before our first line, or between exec and the app's trap
            return "died of 15"
        case 0, "ready\ngot\n" | "got\n":
            return "the app got it"
        case status, _:
            return f"status {status}, {out!r}"


def test_a_stop_at_any_moment_is_not_lost(working: World) -> None:
    """At random offsets from the start to well after exec, each run ends, and in one of three ways."""
    offsets = [random.uniform(0, LATEST) for _ in range(RUNS)]  # noqa: S311  (chance is the point)
    with ThreadPoolExecutor(4) as pool:
        ends = list(pool.map(lambda offset: stop_after(working, offset), offsets))
    print({end: ends.count(end) for end in ends})  # noqa: T201
    bad = [(offset, end) for offset, end in zip(offsets, ends, strict=True) if end not in ENDS]
    assert not bad


ENDS = ("128+15", "died of 15", "the app got it")


def stop_pid_1_after(world: World, seconds: float) -> str:
    """As stop_after(), from the moment that the wrapper has its handlers; before that, PID 1 is deaf."""
    with started(world, DETOUR, "sh", "-c", APP, as_pid_1=True) as (process, target):
        while not _catches(target, signal.SIGTERM):
            time.sleep(0.001)
        time.sleep(seconds)
        os.kill(target, signal.SIGTERM)
        assert process.stderr is not None
        assert process.stdout is not None
        announced = bool(select.select([process.stderr], [], [], 0)[0])
        if not announced:  # the line before exec was not written yet: the stop was the wrapper's
            return "128+15" if process.wait(timeout=10) == 143 else f"lost: {process.returncode}"
        # From exec to the trap, PID 1 is deaf again, as it would be without us.
        said = ""
        while process.poll() is None and "got" not in said:
            said += process.stdout.readline()
            with suppress(ProcessLookupError):
                os.kill(target, signal.SIGTERM)
        status = process.wait(timeout=10)
    return {0: "the app got it", 143: "128+15"}.get(status, f"status {status}")


def _catches(number: int, stop: signal.Signals) -> bool:
    with open(f"/proc/{number}/status") as file:
        caught = next(int(line.split()[1], 16) for line in file if line.startswith("SigCgt"))
    return bool(caught >> (stop - 1) & 1)


def test_a_stop_at_any_moment_is_not_lost_on_pid_1(working: World) -> None:
    """From the first line of ours until the line that announces the app, every stop ends it with 128+n."""
    offsets = [random.uniform(0, 0.15) for _ in range(RUNS // 2)]  # noqa: S311  (chance is the point)
    with ThreadPoolExecutor(4) as pool:
        ends = list(pool.map(lambda offset: stop_pid_1_after(working, offset), offsets))
    print({end: ends.count(end) for end in ends})  # noqa: T201
    assert set(ends) <= {"128+15", "the app got it"}
