"""A stop just before exec is not lost: strace sends one at each of the last system calls that handle signals."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.netns.test_signals import APP, BLOCKS_TERM, PID_1, TAKES_TERM, children
from tests.support.faults.injection import Injection, calls_made, strace
from tests.support.hosts.cloud import LONG
from tests.support.hosts.network import DETOUR, SETTINGS, Network

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CALLS = ("rt_sigprocmask", "rt_sigaction", "rt_sigpending")
"""What the last moment is made of, besides the line that announces the app."""
GIVEN_UP = "NET_ADMIN is dropped"
TERM = int(signal.SIGTERM)

Moment = tuple[str, int]
"""A system call, and which one of its kind it is in a start, counted from 1."""


@pytest.fixture(scope="module")
def working() -> Iterator[Network]:
    """Give a network where the app starts."""
    with Network() as made:
        made.start_mock("--quiet")
        yield made


@contextmanager
def traced(
    network: Network, trace: Path, *command: str, as_pid_1: bool, at: Moment | None = None, before: tuple[str, ...] = ()
) -> Iterator[subprocess.Popen[str]]:
    """Start a command, look at its calls, and send SIGTERM when it is about to make one of them.

    strace looks at the main thread of its own process (-D), which becomes the command: PID 1 stays that.
    """
    injections = () if at is None else (Injection(at[0], "signal=TERM", at[1]),)
    calls = ("write", "execve", "exit_group", *CALLS)
    tracer = strace(*injections, log=str(trace), calls=calls, options=("-D", "-s", "200"))
    start = (*(PID_1 if as_pid_1 else ()), *before, *tracer, *command)
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with network.app.popen(*start, environ={**SETTINGS, "MOCK_LOG": "debug"}, **streams) as process:
        try:
            yield process
        finally:
            process.kill()


def moments(trace: Path) -> list[Moment]:
    """Return which of CALLS come between the line and the app, or the wrapper's end."""
    made = calls_made(trace.read_text())
    (announced,) = [place for place, call in enumerate(made) if GIVEN_UP in call.line]
    after = itertools.takewhile(lambda call: call.name not in ("execve", "exit_group"), made[announced:])
    return [(call.name, call.number) for call in after if call.name in CALLS]


@pytest.fixture(scope="module")
def last(working: Network, tmp_path_factory: pytest.TempPathFactory) -> list[Moment]:
    """Give the last calls of an undisturbed start, in their order."""
    trace = tmp_path_factory.mktemp("window") / "trace"
    with traced(working, trace, DETOUR, "sh", "-c", "exit 7", as_pid_1=False) as process:
        assert process.wait(timeout=60) == 7
    found = moments(trace)
    names = [name for name, _ in found]
    assert (names[0], names[-2], names[-1]) == ("rt_sigprocmask", "rt_sigpending", "rt_sigprocmask")
    assert names.count("rt_sigaction") > 30  # a stop signal each
    return found


def chosen(last: list[Moment]) -> list[Moment]:
    """Return where to send a stop: at all but the last call, which lets stops through; with LONG=0, at some."""
    return last[:-1] if LONG else [*last[:2], *last[6:9], last[20], *last[-4:-1]]


@pytest.mark.slow
@pytest.mark.parametrize("as_pid_1", [False, True], ids=["a process", "PID 1"])
def test_a_stop_at_each_of_the_last_calls_ends_it(
    working: Network, last: list[Moment], tmp_path: Path, as_pid_1: bool
) -> None:
    """From where NET_ADMIN is dropped to the last look at what is pending: 128+n, and the app is not executed."""
    for at in chosen(last):
        trace = tmp_path / "-".join(map(str, at))
        with traced(working, trace, DETOUR, "sh", "-c", "echo started", as_pid_1=as_pid_1, at=at) as process:
            assert process.wait(timeout=60) == 128 + TERM, at
            assert process.stdout is not None
            assert process.stdout.read() == ""
        assert at in moments(trace)  # it was sent there, and not before


def test_behind_the_last_look_a_stop_is_the_signals_own(working: Network, last: list[Moment], tmp_path: Path) -> None:
    """Sent when stops are let through again, it has the default action, as in an app that sets no handler."""
    trace = tmp_path / "trace"
    with traced(working, trace, DETOUR, "sh", "-c", APP, as_pid_1=False, at=last[-1]) as process:
        assert process.wait(timeout=60) == -TERM
    assert moments(trace) == last


def says(process: subprocess.Popen[str]) -> str:
    """Wait for the app's next line."""
    assert process.stdout is not None
    return process.stdout.readline()


def test_behind_the_last_look_pid_1_is_as_deaf_as_the_app_itself(
    working: Network, last: list[Moment], tmp_path: Path
) -> None:
    """The kernel drops what PID 1 has no handler for, with us and without; the app hears the next stop."""
    for wrapper, at in (((DETOUR,), last[-1]), ((), ("rt_sigaction", 1))):  # dash looks, then traps
        trace = tmp_path / f"trace{len(wrapper)}"
        with traced(working, trace, *wrapper, "sh", "-c", APP, as_pid_1=True, at=at) as process:
            assert says(process) == "ready\n"
            assert "--- SIGTERM" in trace.read_text()
            (app,) = children(process.pid)
            os.kill(app, signal.SIGTERM)
            assert says(process) == "got\n"
            assert process.wait(timeout=60) == 0


@pytest.mark.slow
@pytest.mark.parametrize("as_pid_1", [False, True], ids=["a process", "PID 1"])
def test_a_stop_at_each_of_the_last_calls_waits_for_an_app_that_blocks_it(
    working: Network, last: list[Moment], tmp_path: Path, as_pid_1: bool
) -> None:
    """Who has it blocked before us gets it, also when it comes behind the last look."""
    # That Python ignores two signals, and hands it on: one call less for each.
    before = (sys.executable, "-c", BLOCKS_TERM, shutil.which("env") or "env", "--default-signal=PIPE,XFSZ")
    for at in (*chosen(last), last[-1]):
        trace = tmp_path / "-".join(map(str, at))
        app = (sys.executable, "-c", TAKES_TERM)
        with traced(working, trace, DETOUR, *app, as_pid_1=as_pid_1, at=at, before=before) as process:
            assert (says(process), says(process)) == ("blocked\n", f"{TERM}\n"), at
            assert process.wait(timeout=60) == 0
        assert at in moments(trace)
