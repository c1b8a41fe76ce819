"""Changes around a running start: clocks that jump, many signals, and a full cgroup."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial

import pytest

from tests.chaos.cases import DNS, GCP, LONGER, RIGHT, Case
from tests.chaos.contract import ANY_USERS_APP, Ended, Judge
from tests.chaos.test_campaign import judged, played
from tests.support import SUPPORT
from tests.support.hosts.cloud import BACKENDS, LONG
from tests.support.hosts.network import DETOUR, MOCK
from tests.support.judges.processes import children

TEN_YEARS = 315_360_000
ASKING = {
    "a name that comes late": Case(starts=True, dns=("SERVFAIL*3", RIGHT), settings=LONGER),
    "silent DNS": DNS["silent"],
    "a mock that stalls": Case(says="sends nothing within", http=("GET=stall", "PUT=stall")),
}
"""Starts that read clocks often."""


@pytest.fixture(scope="module")
def leaping(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Give the library that makes the real-time clock jump."""
    library = str(tmp_path_factory.mktemp("clock") / "clock.so")
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", library, f"{SUPPORT}/faults/clock.c"], check=True)
    return library


def _leaps() -> list[tuple[str, int, int]]:
    jumps = [(name, by, every) for name in ASKING for by in (TEN_YEARS, -TEN_YEARS) for every in (1, 2, 3, 5)]
    return jumps if LONG else jumps[1:16:7]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "by", "every"), _leaps())
def test_jumping_clock_keeps_the_contract(judge: Judge, leaping: str, name: str, by: int, every: int) -> None:
    """With a real-time clock that jumps by ten years and back, a start ends by its deadline: it reads another clock."""
    clock = ("env", f"LD_PRELOAD={leaping}", f"LEAP={by}", f"LEAP_EVERY={every}")
    judged(judge, replace(ASKING[name], prefix=clock), BACKENDS[every % 2])


def test_jumping_clock_falsifies_a_measurement(judge: Judge, leaping: str) -> None:
    """Negative control: a program that measures a second with that clock is wrong by ten years."""
    measure = "import time; began = time.time(); print(int(time.time() - began))"
    clock = ("env", f"LD_PRELOAD={leaping}", f"LEAP={TEN_YEARS}", "LEAP_EVERY=1")
    assert abs(int(judge.cloud.app.run(*clock, sys.executable, "-c", measure).stdout)) in range(
        TEN_YEARS - 9, TEN_YEARS + 9
    )


HARMLESS = (signal.SIGWINCH, signal.SIGCHLD, signal.SIGSTOP, signal.SIGCONT, signal.SIGURG, signal.SIGCONT)
"""Signals that a start survives, in this order: SIGCONT ends a stop at once, and waits in the kernel restart."""


@contextmanager
def storm(pid: int, *signals: signal.Signals) -> Iterator[list[int]]:
    """Send signals to a process and its children without a pause; give a list that counts the rounds."""
    over, sent = threading.Event(), [0]

    def blow() -> None:
        while not over.is_set():
            for number in signals:
                for process in (pid, *children(pid)):
                    with suppress(ProcessLookupError):  # it has ended
                        os.kill(process, number)
                sent[0] += 1
            over.wait(0.0005)

    thread = threading.Thread(target=blow)
    thread.start()
    try:
        yield sent
    finally:
        over.set()
        thread.join()


def _in_a_storm(judge: Judge, *signals: signal.Signals, **settings: str) -> Ended:
    environ = judge.cloud.settings(None, **settings)
    limit = float(environ["MOCK_TIMEOUT"])
    with judge.cloud.app.popen(
        *(DETOUR, *ANY_USERS_APP), environ=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        began = time.monotonic()
        with storm(process.pid, *signals) as sent:
            out, err = process.communicate(timeout=limit + 60)
        assert sent[0]
    return judge.ended(process.returncode, out, err, time.monotonic() - began, limit)


STORMY = {
    "all in place": Case(starts=True, settings={**GCP, "MOCK_HOSTNAME": MOCK, "MOCK_TIMEOUT": "20"}),
    "a name that comes late": Case(starts=True, dns=("SERVFAIL*3", RIGHT), settings={"MOCK_TIMEOUT": "20"}),
    "silent DNS": DNS["silent"],
    "a mock that stalls": ASKING["a mock that stalls"],
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "backend"), [(name, backend) for name in STORMY for backend in BACKENDS][:: 1 if LONG else 3]
)
def test_many_harmless_signals_keep_the_contract(judge: Judge, name: str, backend: str) -> None:
    """Harmless signals interrupt every call; a start still succeeds or fails in time, as without them."""
    case = replace(STORMY[name], slack=2.0)
    start = partial(_in_a_storm, judge, *HARMLESS)
    end = judge.until_kept(lambda longer: played(judge, case, backend, longer, start), case)
    assert (end.status == 0) is case.starts, end


def test_many_signals_with_sigterm_end_a_start(judge: Judge) -> None:
    """Negative control: the signals do reach the start, so SIGTERM among them ends it."""
    case = Case(dns=("silent",), settings=LONGER, signals=(signal.SIGTERM,))
    end = played(judge, case, "nft", 1, partial(_in_a_storm, judge, *HARMLESS, signal.SIGTERM))
    assert end.status in (128 + signal.SIGTERM, -signal.SIGTERM), end


CGROUPS = "/sys/fs/cgroup"
LIMITS = {
    "memory": ("memory.limit_in_bytes", "memory.max", (24 << 20, 32 << 20, 48 << 20)),
    "pids": ("pids.max", "pids.max", (1, 2, 3, 4)),
}
"""The files of a limit in version 1 and in version 2 of cgroups, and the limits."""


def _group(controller: str) -> str | None:
    """Make a cgroup with a limit, and return the limit's file; None if this machine does not allow it."""
    old, new, _ = LIMITS[controller]
    for parent, file in ((f"{CGROUPS}/{controller}", old), (CGROUPS, new), (f"{CGROUPS}/unified", new)):
        folder = f"{parent}/imds-detour-{os.getpid()}-{controller}"
        with suppress(OSError):
            os.mkdir(folder)
            if os.access(f"{folder}/{file}", os.W_OK):
                return f"{folder}/{file}"
            os.rmdir(folder)
    return None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("controller", "limit", "backend"),
    [(name, limit, backend) for name in LIMITS for limit in LIMITS[name][2] for backend in ("legacy", "auto")][
        :: 1 if LONG else 4
    ],
)
def test_full_cgroup_keeps_the_contract(judge: Judge, controller: str, limit: int, backend: str) -> None:
    """With a container's limits on memory or processes, a start succeeds, fails, or is killed for memory."""
    file = _group(controller)
    if file is None:
        return
    folder = os.path.dirname(file)
    try:
        with open(file, "w") as limits:
            limits.write(str(limit))
        enter = ("sh", "-euc", f'echo $$ >{folder}/cgroup.procs\nexec "$@"', "sh")
        killed = (signal.SIGKILL,) if controller == "memory" else ()
        judged(judge, Case(starts=None, prefix=enter, settings=LONGER, bare=True, signals=killed), backend)
        with open(f"{folder}/cgroup.procs") as left:
            assert left.read() == ""
    finally:
        os.rmdir(folder)
