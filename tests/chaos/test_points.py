"""A start or its helper is killed or stopped at every step that the start reports."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from tests.chaos.cases import Case
from tests.chaos.contract import ANY_USERS_APP, Ended, Judge
from tests.chaos.test_campaign import FAULTY_PORT
from tests.support.faults.injection import Injection, strace
from tests.support.hosts.cloud import BACKENDS, LONG
from tests.support.hosts.ip_version import V4, V6
from tests.support.hosts.network import DETOUR, MOCK, NAME
from tests.support.judges.processes import children

POINTS = {
    "rule: filter": "before the guard",
    "guard: ": "after the guard",
    f"{NAME} is at ": "the name is looked up",
    "PUT ": "after the request for a token",
    "GET ": "after an answer",
    "the mock answers: ": "after the mock's answer",
    "route: ": "after the route",
    "rule: nat": "before the redirect",
    "redirect: 169": "after the redirect",
    "redirect: [": "the same over IPv6",
    "/etc/hosts: ": "after the host names",
    "verified: ": "after the verification",
    "NET_ADMIN is dropped": "after the last change of imds-detour",
    "user: ": "last step before the app",
}
"""The beginning of a line of MOCK_LOG=debug, and its step."""
UNDONE = {
    "no mock over IPv6": "the mock answers over IPv4 only",
    "undo: the rules in table nat": "before the redirect is removed",
}
"""The same for a start whose verification fails."""
SOMETIMES = ("the system resolver has no address", "DNS ")
"""Lines of a slow look-up, on a busy machine. Other cases test DNS."""
LIMIT = 2.0
SLACK = 1.0
"""Seconds that strace and the stops at each line add."""
SETTINGS = {"MOCK_LOG": "debug", "MOCK_ENDPOINTS": "aws,gcp", "MOCK_USER": "1:1"}
FAILING = {"MOCK_LOG": "debug", "MOCK_PORT": FAULTY_PORT, "MOCK_PROBE": "/time"}
STOPPING = strace(Injection("write", "signal=STOP"))
"""Stop a process, but not its children, at each line that it writes."""


@pytest.fixture(scope="module")
def judge(judge: Judge) -> Judge:
    """Give a network with IPv6, a name for both addresses of the mock, and a second mock whose answers vary."""
    cloud = judge.cloud
    for host, address in ((cloud.mock, V6.mock), (cloud.app, V6.app)):
        host.ip("address", "add", f"{address}/{V6.length}", "dev", "eth0", "nodad")
    cloud.start_dns(f"{NAME}={V4.mock},{V6.mock}")
    cloud.start_faulty("GET=count", port=FAULTY_PORT)
    return judge


def played(judge: Judge, point: str, backend: str, *, kind: str, how: signal.Signals, limit: float) -> Ended:
    """Send a signal to the wrapper or its helpers at a point, and return how the start ended."""
    judge.clean()
    judge.cloud.app.ip("route", "del", "default")
    chosen = FAILING if point in UNDONE else SETTINGS
    environ = judge.cloud.settings(None, **chosen, MOCK_BACKEND=backend, MOCK_TIMEOUT=f"{limit:g}")
    hit: list[int] = []

    def strike(line: str, target: int) -> bool:
        if not hit and line.partition(" ms  ")[2].startswith(point):
            hit.extend([target] if kind == "wrapper" else children(target))
            assert hit, "the helper is not there"
            for pid in hit:
                os.kill(pid, how)
        return bool(hit)  # no later point matters, and the app would stop at its writes too

    try:
        status, out, output, seconds = stepped(judge, environ, strike)
    finally:
        judge.cloud.app.ip("route", "add", "default", "via", MOCK)
    assert hit, output
    return judge.ended(status, out, "" if status == -signal.SIGKILL else without_steps(output), seconds, limit)


def stepped(judge: Judge, environ: dict[str, str], at: Callable[[str, int], bool]) -> tuple[int, str, str, float]:
    """Run a start that stops at each line until ``at(line, pid)`` is true; return status, stdout, stderr, seconds."""
    began, output, target, free = time.monotonic(), "", 0, False
    with judge.cloud.app.popen(
        *(*STOPPING, DETOUR, *ANY_USERS_APP), environ=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as strace:
        assert strace.stderr is not None
        assert strace.stdout is not None
        try:
            for line in strace.stderr:
                output += line
                target = target or child_of(strace.pid)
                if at(line, target) and not free:
                    free = True
                    threading.Thread(target=keep_going, args=(target,), daemon=True).start()
                elif not free:
                    go_on(target)
        except AssertionError:
            strace.kill()
            os.kill(target, signal.SIGKILL)
            raise
        out = strace.stdout.read()
        status = strace.wait()
    return status, out, output, time.monotonic() - began


def without_steps(output: str) -> str:
    """Return the lines of a start that are not those of MOCK_LOG=debug."""
    return "".join(line for line in output.splitlines(keepends=True) if " ms  " not in line)


def child_of(pid: int) -> int:
    """Return the child of strace."""
    while not (pids := children(pid)):
        time.sleep(0.001)
    return pids[0]


def keep_going(pid: int) -> None:
    """Continue a process at every stop, until it ends."""
    while go_on(pid):
        pass


def go_on(pid: int) -> bool:
    """Wait for a process to stop, and continue it. Return False when it has ended."""
    for _ in range(2000):
        try:
            with open(f"/proc/{pid}/stat") as stat:
                state = stat.read().rpartition(") ")[2][0]
        except OSError:
            return False
        if state in "ZX":
            return False
        if state in "tT":
            with suppress(ProcessLookupError):  # killed meanwhile
                os.kill(pid, signal.SIGCONT)
            return True
        time.sleep(0.001)
    return True


HOW = {
    "the wrapper is killed": ("wrapper", signal.SIGKILL),
    "the helper is killed": ("helper", signal.SIGKILL),
    "the helper hangs": ("helper", signal.SIGSTOP),
}


def _chosen() -> list[tuple[str, str, str]]:
    every = [(how, point, backend) for how in HOW for backend in BACKENDS for point in (*POINTS, *UNDONE)]
    every = [case for case in every if case[2] == "legacy" or HOW[case[0]][0] == "wrapper"]  # nft has no helper
    every = [case for case in every if case[1] != "user: " or HOW[case[0]][0] == "wrapper"]  # it has ended by then
    return every if LONG else every[::13]


@pytest.mark.slow
@pytest.mark.parametrize(("how", "point", "backend"), _chosen())
def test_fault_at_any_step_keeps_the_contract(judge: Judge, how: str, point: str, backend: str) -> None:
    """A start that is killed or stopped at any step keeps the contract, and the next start succeeds."""
    kind, number = HOW[how]

    signals = (number,) if kind == "wrapper" else ()
    end = judge.until_kept(
        lambda longer: played(judge, point, backend, kind=kind, how=number, limit=LIMIT * longer),
        Case(slack=SLACK, signals=signals),
    )
    # After the verification the helper is not needed.
    assert end.status != 0 or (kind == "helper" and point not in UNDONE)
    after = judge.start(MOCK_HOSTNAME=MOCK, MOCK_BACKEND=backend, MOCK_TIMEOUT="20")
    assert after.status == 0, f"{after}"


@pytest.mark.parametrize("backend", BACKENDS)
def test_list_of_steps_is_complete_and_current(judge: Judge, backend: str) -> None:
    """The lists hold every line of a start with MOCK_LOG=debug, and no other line."""
    output = []
    judge.cloud.app.ip("route", "del", "default")
    try:
        for settings, status in ((SETTINGS, 0), (FAILING, 125)):
            judge.clean()
            environ = judge.cloud.settings(None, **settings, MOCK_BACKEND=backend, MOCK_TIMEOUT="20")
            done = judge.cloud.app.run(DETOUR, *ANY_USERS_APP, environ=environ, check=False)
            assert done.returncode == status, done
            output += [line.partition(" ms  ")[2] for line in done.stderr.splitlines() if " ms  " in line]
    finally:
        judge.cloud.app.ip("route", "add", "default", "via", MOCK)
    points = (*POINTS, *UNDONE)
    assert [line for line in output if not line.startswith((*points, *SOMETIMES))] == []
    assert [point for point in points if not any(line.startswith(point) for line in output)] == []
