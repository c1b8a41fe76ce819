"""A stop signal ends any wait at once, as PID 1 and as another process; after exec it is the app's."""

import os
import random
import select
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import pytest

from imds_detour.process import handover
from tests.support.faults.lock import held_lock
from tests.support.hosts.cloud import LONG
from tests.support.hosts.network import BUNDLED, DETOUR, MOCK, NAME, SETTINGS, Network, read_line, read_until
from tests.support.judges import rules_listing
from tests.support.judges.processes import children
from tests.support.marks import first_quick

STOPS = {
    "SIGTERM": signal.SIGTERM,
    "SIGINT": signal.SIGINT,
    "SIGQUIT": signal.SIGQUIT,
    "SIGHUP": signal.SIGHUP,
    "SIGUSR1": signal.SIGUSR1,
    "SIGUSR2": signal.SIGUSR2,
    "SIGRTMIN": signal.SIGRTMIN,
    "SIGRTMIN+3": signal.SIGRTMIN + 3,
    "SIGRTMAX": signal.SIGRTMAX,
}
TIMEOUT = 0.3
"""Seconds from the signal to the end. 0.1 is promised, and the rest is for a machine that is busy with other tests."""
CHAINS = {"OUTPUT", "FORWARD", "IMDS_DETOUR_GUARD"}
"""The chains that a stopped start leaves rules in: its guard's."""
PID_1 = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--")
"""Run a command as the first process of a pid namespace; unshare waits outside and returns its status."""
SETTLED = {"MOCK_LOG": "debug", "MOCK_TIMEOUT": "30"}
delays: dict[str, list[float]] = {}


@pytest.fixture(scope="module")
def waiting() -> Iterator[Network]:
    """Give a network with silent servers of each kind."""
    with Network() as network:
        network.start_dns("silent")
        network.start_faulty("GET=stall", "PUT=stall", port="1338")
        network.mock.run("iptables-legacy", "-A", "INPUT", "-p", "tcp", "--dport", "7777", "-j", "DROP")
        yield network
    for wait, seconds in delays.items():
        milliseconds = sorted(1000 * second for second in seconds)
        print(f"{wait}: median {statistics.median(milliseconds):.1f} ms, worst {milliseconds[-1]:.1f} ms")  # noqa: T201


WAITS = {
    "silent DNS": {"MOCK_HOSTNAME": NAME},
    "refused port": {"MOCK_HOSTNAME": MOCK, "MOCK_PORT": "7"},
    "stalled HTTP": {"MOCK_HOSTNAME": MOCK, "MOCK_PORT": "1338"},
    "black hole": {"MOCK_HOSTNAME": MOCK, "MOCK_PORT": "7777"},
}


@contextmanager
def started(
    network: Network, *command: str, as_pid_1: bool, **settings: str
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Start a command on the app's host, and give it with the id of the process to signal."""
    environ = {**SETTINGS, **settings}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    start = (*(PID_1 if as_pid_1 else ()), "prlimit", "--core=0", *command)  # a core file takes seconds
    with network.app.popen(*start, environ=environ, **pipes) as process:
        try:
            yield process, _first_child(process.pid) if as_pid_1 else process.pid
        finally:
            process.kill()


def _first_child(parent: int) -> int:
    while True:
        if pids := children(parent):
            return pids[0]
        time.sleep(0.001)


def _stat(name: str) -> list[str]:
    """Return state, parent, ... of a process; nothing after its end."""
    try:
        with open(f"/proc/{name}/stat") as file:
            return file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def gone(number: int) -> bool:
    """Return whether a process has ended, and reap a child of this process."""
    with suppress(ChildProcessError):
        os.waitpid(number, os.WNOHANG)
    return _stat(str(number))[:1] in ([], ["Z"], ["X"])


@pytest.mark.parametrize("as_pid_1", [False, True], ids=["a process", "PID 1"])
@pytest.mark.parametrize("wait", WAITS)
@pytest.mark.parametrize("name", STOPS)
def test_stop_ends_a_wait_at_once(waiting: Network, name: str, wait: str, as_pid_1: bool) -> None:
    """A stop during any wait gives 128+n at once. No app, no process and no redirect remains."""
    number = STOPS[name]
    run = started(waiting, DETOUR, "echo", "started", as_pid_1=as_pid_1, **{**SETTLED, **WAITS[wait]})
    with run as (process, target):
        read_until(process, "guard: ")
        if wait == "refused port" or (wait, name) == ("silent DNS", "SIGTERM"):
            # The stop comes between two attempts, or during dnspython's. Otherwise it comes during libc's look-up.
            read_until(process, "waiting: ")
        helpers = children(target)
        began = time.monotonic()
        os.kill(target, number)
        status = process.wait(timeout=20)
        delay = time.monotonic() - began
        assert process.stdout is not None
        assert process.stdout.read() == ""
    assert status == 128 + number
    delays.setdefault(wait, []).append(delay)
    assert delay <= TIMEOUT
    assert helpers
    deadline = time.monotonic() + 2
    while not all(gone(helper) for helper in helpers):
        assert time.monotonic() < deadline, "the firewall helper outlives its parent"
        time.sleep(0.005)
    assert "DNAT" not in waiting.rules()
    assert {line.split()[1] for line in waiting.detour_rules().splitlines() if line.startswith("-A")} <= CHAINS


def test_pid_1_without_a_handler_ignores_a_stop(waiting: Network) -> None:
    """Negative control: as PID 1, a program without a handler ignores SIGTERM."""
    with started(waiting, "sh", "-c", "echo ready; exec sleep 30", as_pid_1=True) as (process, target):
        assert read_line(process) == "ready\n"
        os.kill(target, signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=TIMEOUT)


LOOKS_UP = """
import os, signal, socket, sys
signal.signal(signal.SIGTERM, lambda number, _frame: os._exit(128 + number))
"name".encode("idna")  # loads what getaddrinfo() would load
print("ready", flush=True)
socket.getaddrinfo(sys.argv[1], 80)
"""


@pytest.mark.slow
def test_naive_wrapper_acts_on_a_stop_after_its_look_up(waiting: Network) -> None:
    """Negative control: a handler in Python waits for libc, which waits for a silent DNS server."""
    command = (sys.executable, "-c", LOOKS_UP, NAME)
    with started(waiting, *command, as_pid_1=False) as (process, target):
        assert read_line(process) == "ready\n"
        while _stat(str(target))[0] != "S":
            time.sleep(0.001)
        os.kill(target, signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=1)


def test_firewall_helpers_have_none_of_the_apps_streams(waiting: Network) -> None:
    """Helpers hold no stream of the app, so its readers see its end. Control: the wrapper has all three."""
    run = started(waiting, DETOUR, "true", as_pid_1=False, **SETTLED, **WAITS["refused port"])
    with run as (process, target):
        read_until(process, "waiting: ")
        assert [link.partition(":")[0] for link in _streams(target)] == ["pipe"] * 3
        helpers = children(target)
        assert helpers
        for helper in helpers:
            while not (links := _streams(helper))[2].startswith("/memfd:"):
                time.sleep(0.001)  # the last step before the helper loads its library
            assert links[:2] == ["/dev/null"] * 2


def _streams(number: int) -> list[str]:
    return [os.readlink(f"/proc/{number}/fd/{stream}") for stream in (0, 1, 2)]


def test_ignored_stop_stays_ignored(waiting: Network) -> None:
    """A signal that the parent ignored (nohup) does not end the wait, and another one does."""
    script = f"trap '' HUP; exec {DETOUR} echo started"
    with started(waiting, "sh", "-c", script, as_pid_1=False, **SETTLED, **WAITS["refused port"]) as (process, target):
        read_until(process, "waiting: ")
        os.kill(target, signal.SIGHUP)
        os.kill(target, signal.SIGTERM)
        assert process.wait(timeout=20) == 128 + signal.SIGTERM


@pytest.fixture(scope="module")
def working() -> Iterator[Network]:
    """Give a network where the app starts."""
    with Network() as network:
        network.start_mock("--quiet")  # the test does not read its log, and a pipe holds 64 KiB
        yield network


APP = "trap 'echo got; exit 0' TERM INT HUP QUIT USR1 USR2 34 37 64; echo ready; while :; do read line; done"
"""Print when it is ready, and at a signal. 34 is SIGRTMIN, 37 SIGRTMIN+3 and 64 SIGRTMAX: dash needs numbers."""

STARTS = (DETOUR, "sh", "-c", APP)


@pytest.mark.parametrize("as_pid_1", [False, True], ids=["a process", "PID 1"])
@pytest.mark.parametrize("name", STOPS)
def test_after_exec_the_app_gets_the_signal(working: Network, name: str, as_pid_1: bool) -> None:
    """After exec the app's process is the one that is signalled."""
    with started(working, *STARTS, as_pid_1=as_pid_1) as (process, target):
        assert read_line(process) == "ready\n"
        os.kill(target, STOPS[name])
        assert (read_line(process), process.wait(timeout=5)) == ("got\n", 0)


RUNS = 500 if LONG else 24
LATEST = 2
"""The latest stop, in units of a start's duration: half of the stops come before the app runs, and half after."""
BUSY = """
import os, sys, zlib
from imds_detour.process import handover
handover.install_stop_handlers(handover.Inherited.from_process())
if sys.argv[1] == "watched":
    handover.start_stop_thread()
noise = os.urandom(1 << 20) * 100
print("busy", flush=True)
zlib.compress(noise, 9)
"""
"""A main thread that runs C code for some seconds, and does not check for signals meanwhile."""


@pytest.mark.slow
@pytest.mark.parametrize(("watched", "seconds"), [("watched", (0, 0.5)), ("alone", (0.5, 60))])
def test_stop_ends_a_start_while_python_runs_c_code(watched: str, seconds: tuple[float, float]) -> None:
    """A thread acts on a stop while the main thread runs C code. Negative control: without it, the stop waits."""
    command = (sys.executable, "-c", BUSY, watched)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert read_line(process) == "busy\n"
        time.sleep(0.1)  # until it compresses, which no test can see
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 128 + signal.SIGTERM
    assert seconds[0] <= time.monotonic() - began < seconds[1]


IN_TURN = ("SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGRTMIN+3")
HANGS = 10.0
"""Seconds from a stop to the end after which a start counts as hung."""
ON_TIME = 0.1
"""Seconds from a stop to the end that are promised, without those in which the process waited for a processor."""
IN_WRAPPER, IN_APP, AGAIN = "128+n", "the app got it", "the app got it at the second try"
HUNG = "hung"
EARLY, BETWEEN = "died of n before the first line", "died of n between exec and the app's trap"
WORKS = {"legacy": {"MOCK_BACKEND": "legacy"}, "nft": {"MOCK_BACKEND": "nft"}, "PYTHONPATH": {"PYTHONPATH": "/nowhere"}}
"""Starts that succeed: by each backend, and with a second interpreter (pip.py)."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """How a stopped start ended.

    Attributes:
        how: one of the constants above, or a description.
        delay: seconds from the stop to the end.
        waited: seconds of the delay in which the start, or this test, waited for a processor.

    """

    how: str
    delay: float
    waited: float

    @property
    def late(self) -> bool:
        """Whether imds-detour ended late by its own fault; the app's end is not its own."""
        return self.how in (IN_WRAPPER, EARLY, BETWEEN, HUNG) and self.delay - self.waited > ON_TIME


def stop_after(
    network: Network, number: int, seconds: float, *, as_pid_1: bool, command: Sequence[str] = STARTS, **settings: str
) -> Stopped:
    """Start, stop after some seconds, and return how the start ended.

    For PID 1, and with the bundle, the time counts from when it catches or blocks stops: before that the kernel drops
    them, or they hit another program.
    """
    with (
        started(network, *command, as_pid_1=as_pid_1, **settings) as (process, target),
        open(os.pidfd_open(target), "rb", buffering=0) as end,
    ):
        assert process.stdout is not None
        assert process.stderr is not None
        while (as_pid_1 or BUNDLED) and not _handles_stops(target):
            time.sleep(0.001)
        time.sleep(seconds)
        helpers = children(target)
        if as_pid_1:
            _hold(process)  # so that unshare does not reap the first process before the test reads its state
        waited, began = _waited(target), time.monotonic()
        os.kill(target, number)
        announced = bool(select.select([process.stderr], [], [], 0)[0])
        again = False
        if as_pid_1 and announced:
            # From exec to the app's trap, PID 1 ignores signals again, as without imds-detour.
            out, again = _app_output(process, target, end.fileno(), number)
        if not select.select([end], [], [], HANGS)[0]:
            return Stopped(HUNG, HANGS, 0)
        delay = time.monotonic() - began
        waited = _waited(target) - waited
        process.send_signal(signal.SIGCONT)
        status = process.wait(timeout=HANGS)
        if not (as_pid_1 and announced):
            out = process.stdout.read()
        while not all(gone(helper) for helper in helpers):
            time.sleep(0.002)
        executed = "; exec sh" in process.stderr.read()
    match status, out:
        case value, "" if value == 128 + number:
            how = IN_WRAPPER
        case value, ("" | "ready\n") if value == -number and not as_pid_1:
            how = BETWEEN if executed else EARLY
        case 1, "" if number == signal.SIGINT and not as_pid_1 and not executed:
            how = EARLY  # a KeyboardInterrupt while the interpreter starts
        case 0, ("ready\ngot\n" | "got\n"):
            how = AGAIN if again else IN_APP
        case _:
            how = f"status {status}, {out!r}"
    return Stopped(how, delay, waited)


def _hold(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGSTOP)
    while _stat(str(process.pid))[0] != "T":
        time.sleep(0.001)


def _waited(number: int) -> float:
    """Return the seconds for which a process, ended or not, and this one have waited for a processor."""
    seconds = 0.0
    for pid in (number, os.getpid()):
        with suppress(OSError), open(f"/proc/{pid}/schedstat") as file:  # a kernel may not have it
            seconds += int(file.read().split()[1]) / 1e9
    return seconds


def _app_output(process: subprocess.Popen[str], target: int, end: int, number: int) -> tuple[str, bool]:
    """Return the app's output until it gets the signal or ends, and whether it took a second signal."""
    assert process.stdout is not None
    stdout = process.stdout.fileno()
    out, again, until = "", False, time.monotonic() + HANGS
    while "got" not in out and time.monotonic() < until:
        ready = select.select([stdout, end], [], [], 0.1)[0]
        if stdout in ready:
            # Not by lines: select() would not see a second line in Python's buffer.
            data = os.read(stdout, 4096)
            if not data:
                break
            out += data.decode()
        elif ready:
            break  # the app has ended, and its output has been read
        elif out and not again:
            again = True
            with suppress(ProcessLookupError):
                os.kill(target, number)
    return out, again


def _handles_stops(number: int) -> bool:
    """Return whether a process has a handler for stops, or blocks them."""
    try:
        with open(f"/proc/{number}/status") as file:
            masks = [int(line.split()[1], 16) for line in file if line.startswith(("SigCgt", "SigBlk"))]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return any(all(mask >> (stop - 1) & 1 for stop in handover.STOPS) for mask in masks)


def time_of_a_start(network: Network, **settings: str) -> float:
    """Return the seconds from a start to the app's first output, on this machine now."""
    seconds = []
    for _ in range(5):
        began = time.monotonic()
        with started(network, *STARTS, as_pid_1=False, **settings) as (process, _target):
            assert read_line(process) == "ready\n"
            seconds.append(time.monotonic() - began)
    return statistics.median(seconds)


def stop_often(network: Network, runs: int, latest: float, *, as_pid_1: bool, **settings: str) -> dict[str, int]:
    """Stop many starts at random offsets, and count the ends: no redirect without a guard, none late twice."""
    stopped: list[Stopped] = []
    for run in range(runs):
        name = IN_TURN[run % len(IN_TURN)]
        offset = random.uniform(0, latest)  # noqa: S311  (chance is the point)
        stopped.append(_stop_once(network, name, offset, as_pid_1=as_pid_1, **settings))
        if stopped[-1].late:
            again = _stop_once(network, name, offset, as_pid_1=as_pid_1, **settings)
            assert not again.late, (name, offset, stopped[-1], again)
    own = [stop.delay - stop.waited for stop in stopped]
    assert statistics.median(own) <= ON_TIME, own
    ends, seconds = [stop.how for stop in stopped], sorted(stop.delay for stop in stopped)
    figures = ", ".join(f"{part:.0%} {1000 * seconds[int(part * (runs - 1))]:.1f} ms" for part in (0.5, 0.9, 0.99, 1))
    late = sum(stop.late for stop in stopped)
    counted = {end: ends.count(end) for end in sorted(set(ends))}
    print(f"{runs} stops, {settings}, PID 1 {as_pid_1}: {counted}; stop to end: {figures}; late once {late}")  # noqa: T201
    return counted


def _stop_once(network: Network, name: str, offset: float, *, as_pid_1: bool, **settings: str) -> Stopped:
    end = stop_after(network, STOPS[name], offset, as_pid_1=as_pid_1, **settings)
    assert end.how in (IN_WRAPPER, BETWEEN, IN_APP, AGAIN, *OF_PIP), (name, offset, end)
    listed = network.app.run("sh", "-c", rules_listing.LISTED).stdout
    assert not rules_listing.unguarded(listed), (name, offset, end, listed)
    if rules_listing.redirected(listed):  # a guard alone may stay, and it must while the lock is held
        network.app.run("sh", "-c", CLEAN)
    return end


OF_PIP = () if BUNDLED else (EARLY,)
"""Before the first line, a stop acts by default or as a KeyboardInterrupt. The bundle's launcher blocks stops."""


CLEAN = """
for t in nat filter; do for i in iptables-legacy ip6tables-legacy; do $i -t $t -F; $i -t $t -X; done; done
for version in ip ip6; do nft delete table $version imds_detour 2>/dev/null; done; true
"""


LATE_WRAPPER = """
import os, signal, sys, time
from imds_detour.process import handover

def stop(number, _frame):
    if sys.argv[1] == "asleep":
        time.sleep(0.2)
    others = []
    if sys.argv[1] == "busy":
        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
        for _ in range(6):
            others += [os.fork()]
            while others[-1] == 0:
                pass
        until = time.process_time() + 0.05
        while time.process_time() < until:
            pass
    for other in others:
        os.kill(other, signal.SIGKILL)
    os._exit(128 + number)

for number in handover.STOPS:
    signal.signal(number, stop)
while True:
    signal.pause()
"""
"""A wrapper that ends late, because it sleeps or because six processes share its processor."""


@pytest.mark.parametrize(("how", "late"), [("asleep", True), ("busy", False), ("at once", False)])
def test_judge_detects_a_late_exit(waiting: Network, how: str, late: bool) -> None:
    """Negative control: a wrapper that sleeps is late, and one that waits for a processor is not."""
    end = stop_after(waiting, signal.SIGTERM, 0, as_pid_1=True, command=(sys.executable, "-c", LATE_WRAPPER, how))
    assert (end.how, end.late) == (IN_WRAPPER, late), end
    assert how == "at once" or end.delay > ON_TIME


@pytest.mark.parametrize("as_pid_1", first_quick([False, True]), ids=["a process", "PID 1"])
@pytest.mark.parametrize("work", first_quick(WORKS))
def test_stop_at_any_moment_is_not_lost(working: Network, work: str, as_pid_1: bool) -> None:
    """A stop at any time ends the start with 128+n or by the signal, or the app gets it."""
    runs, latest = RUNS if work == "legacy" else RUNS // 4, LATEST * time_of_a_start(working, **WORKS[work])
    counted = stop_often(working, runs, latest, as_pid_1=as_pid_1, **WORKS[work])
    # A second signal is only needed after a stop between exec and the app's trap.
    assert counted.get(AGAIN, 0) <= RUNS // 4  # 3 of 24 were seen on a busy machine


@pytest.fixture
def held(waiting: Network) -> Iterator[None]:
    """Hold the lock of iptables, for which the firewall helper then waits."""
    with held_lock(waiting.app):
        yield


@pytest.mark.slow
@pytest.mark.parametrize("as_pid_1", [False, True], ids=["a process", "PID 1"])
@pytest.mark.parametrize("wait", [*WAITS, "busy firewall"])
def test_stop_at_any_moment_of_a_wait_ends_it(
    waiting: Network, wait: str, as_pid_1: bool, request: pytest.FixtureRequest
) -> None:
    """A stop at any time of any wait gives 128+n, and neither a redirect nor a process remains."""
    if wait == "busy firewall":
        request.getfixturevalue("held")
    settings = {"MOCK_TIMEOUT": "30", **WAITS.get(wait, WAITS["refused port"])}
    counted = stop_often(waiting, max(RUNS // 5, len(IN_TURN)), 1.5, as_pid_1=as_pid_1, **settings)
    assert set(counted) <= {IN_WRAPPER, *(() if as_pid_1 else OF_PIP)}
    assert not rules_listing.redirected(waiting.app.run("sh", "-c", rules_listing.LISTED).stdout)


BLOCKS_TERM = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print("blocked", flush=True)
os.execv(sys.argv[1], sys.argv[1:])
"""
TAKES_TERM = "import signal; print(int(signal.sigwait([signal.SIGTERM])))"


def test_blocked_stop_reaches_the_app(working: Network) -> None:
    """As PID 1, a stop that the parent has blocked reaches the app, whenever it is sent."""
    command = (sys.executable, "-c", BLOCKS_TERM, DETOUR, sys.executable, "-c", TAKES_TERM)
    latest = LATEST * time_of_a_start(working)
    for _ in range(RUNS // 4):
        with started(working, *command, as_pid_1=True) as (process, target):
            assert process.stdout is not None
            assert process.stdout.readline() == "blocked\n"
            time.sleep(random.uniform(0, latest))  # noqa: S311  (chance is the point)
            os.kill(target, signal.SIGTERM)
            assert (process.stdout.read(), process.wait()) == (f"{signal.SIGTERM:d}\n", 0)
