"""A stop signal just before exec is not lost. strace sends SIGTERM at each of the last signal system calls."""

import itertools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.netns.test_signals import APP, BLOCKS_TERM, PID_1, TAKES_TERM
from tests.support.faults.injection import Injection, calls_made, strace
from tests.support.hosts.cloud import LONG
from tests.support.hosts.network import DETOUR, SETTINGS, Network, read_line
from tests.support.judges.processes import children

CALLS = ("rt_sigprocmask", "rt_sigaction", "rt_sigpending")
"""Signal system calls between the last log line and exec."""
LAST_LINE = "NET_ADMIN is dropped"
TERM = int(signal.SIGTERM)

Call = tuple[str, int]
"""A system call and its number among the calls of its kind in a start, from 1."""


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    """Yield a network in which a start succeeds."""
    with Network() as made:
        made.start_mock("--quiet")
        yield made


@contextmanager
def traced(
    network: Network, trace: Path, *command: str, as_pid_1: bool, at: Call | None = None, prefix: tuple[str, ...] = ()
) -> Iterator[subprocess.Popen[str]]:
    """Send SIGTERM before one of the command's calls, under strace -D, with which PID 1 stays the command."""
    injections = () if at is None else (Injection(at[0], "signal=TERM", at[1]),)
    calls = ("write", "execve", "exit_group", *CALLS)
    tracer = strace(*injections, log=str(trace), calls=calls, options=("-D", "-s", "200"))
    start = (*(PID_1 if as_pid_1 else ()), *prefix, *tracer, *command)
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with network.app.popen(*start, environ={**SETTINGS, "MOCK_LOG": "debug"}, **streams) as process:
        try:
            yield process
        finally:
            process.kill()


def signal_calls(trace: Path) -> list[Call]:
    """Return the calls in CALLS between the last log line and exec or exit."""
    made = calls_made(trace.read_text())
    (announced,) = [index for index, call in enumerate(made) if LAST_LINE in call.line]
    after = itertools.takewhile(lambda call: call.name not in ("execve", "exit_group"), made[announced:])
    return [(call.name, call.number) for call in after if call.name in CALLS]


@pytest.fixture(scope="module")
def last_calls(network: Network, tmp_path_factory: pytest.TempPathFactory) -> list[Call]:
    """Return the last signal calls of a start without a stop signal, in order."""
    trace = tmp_path_factory.mktemp("window") / "trace"
    with traced(network, trace, DETOUR, "sh", "-c", "exit 7", as_pid_1=False) as process:
        assert process.wait(timeout=60) == 7
    calls = signal_calls(trace)
    names = [name for name, _ in calls]
    assert (names[0], names[-2], names[-1]) == ("rt_sigprocmask", "rt_sigpending", "rt_sigprocmask")
    assert names.count("rt_sigaction") > 30  # one for each stop signal
    return calls


def stop_calls(last_calls: list[Call]) -> list[Call]:
    """Return the calls to test: all but the last, which unblocks signals; with LONG=0 only some."""
    return last_calls[:-1] if LONG else [*last_calls[:2], *last_calls[6:9], last_calls[20], *last_calls[-4:-1]]


@pytest.mark.slow
@pytest.mark.parametrize("as_pid_1", [False, True], ids=["a process", "PID 1"])
def test_stop_at_a_last_call_ends_it(network: Network, last_calls: list[Call], tmp_path: Path, as_pid_1: bool) -> None:
    """SIGTERM between dropping NET_ADMIN and the last signal check exits with 143 and does not execute the app."""
    for at in stop_calls(last_calls):
        trace = tmp_path / "-".join(map(str, at))
        with traced(network, trace, DETOUR, "sh", "-c", "echo started", as_pid_1=as_pid_1, at=at) as process:
            assert process.wait(timeout=60) == 128 + TERM, at
            assert process.stdout is not None
            assert process.stdout.read() == ""
        assert at in signal_calls(trace)  # the signal was sent at that call


def test_stop_after_the_last_check_has_default_action(network: Network, last_calls: list[Call], tmp_path: Path) -> None:
    """SIGTERM after the last signal check kills the process, as an app without a handler."""
    trace = tmp_path / "trace"
    with traced(network, trace, DETOUR, "sh", "-c", APP, as_pid_1=False, at=last_calls[-1]) as process:
        assert process.wait(timeout=60) == -TERM
    assert signal_calls(trace) == last_calls


def test_stop_of_pid_1_after_last_check_is_dropped(network: Network, last_calls: list[Call], tmp_path: Path) -> None:
    """The kernel drops SIGTERM for a PID 1 without a handler, with or without imds-detour; the app gets the next."""
    for wrapper, at in (
        ((DETOUR,), last_calls[-1]),
        ((), ("rt_sigaction", 1)),
    ):  # dash reads the action before it sets a trap
        trace = tmp_path / f"trace{len(wrapper)}"
        with traced(network, trace, *wrapper, "sh", "-c", APP, as_pid_1=True, at=at) as process:
            assert read_line(process) == "ready\n"
            assert "--- SIGTERM" in trace.read_text()
            (app,) = children(process.pid)
            os.kill(app, signal.SIGTERM)
            assert (read_line(process), process.wait(timeout=60)) == ("got\n", 0)


@pytest.mark.slow
@pytest.mark.parametrize("as_pid_1", [False, True], ids=["a process", "PID 1"])
def test_blocked_stop_at_a_last_call_reaches_the_app(
    network: Network, last_calls: list[Call], tmp_path: Path, as_pid_1: bool
) -> None:
    """An app whose parent blocked SIGTERM gets the signal, whenever it was sent during the start."""
    # Python ignores SIGPIPE and SIGXFSZ and its child inherits that: reset both, or a start makes fewer calls.
    prefix = (sys.executable, "-c", BLOCKS_TERM, shutil.which("env") or "env", "--default-signal=PIPE,XFSZ")
    for at in (*stop_calls(last_calls), last_calls[-1]):
        trace = tmp_path / "-".join(map(str, at))
        app = (sys.executable, "-c", TAKES_TERM)
        with traced(network, trace, DETOUR, *app, as_pid_1=as_pid_1, at=at, prefix=prefix) as process:
            assert (read_line(process), read_line(process)) == ("blocked\n", f"{TERM}\n"), at
            assert process.wait(timeout=60) == 0
        assert at in signal_calls(trace)
