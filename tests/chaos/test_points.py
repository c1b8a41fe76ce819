"""Killed, or its helper killed or stopped, at every step that a start reports: each named point is hit."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.chaos.cases import Case
from tests.chaos.contract import ANY_USERS_APP, Ended
from tests.chaos.test_campaign import FAULTY_PORT
from tests.support.faults.injection import Injection, strace
from tests.support.hosts.cloud import BACKENDS, LONG
from tests.support.hosts.ip_version import V4, V6
from tests.support.hosts.network import DETOUR, MOCK, NAME

if TYPE_CHECKING:
    from tests.chaos.contract import Judge

POINTS = {
    "rule: filter": "before the guard",
    "guard: ": "behind the guard",
    f"{NAME} is at ": "the name is looked up",
    "PUT ": "a token is there",
    "GET ": "an answer is there",
    "the mock answers: ": "the mock is found",
    "route: ": "the route is there",
    "rule: nat": "before the redirect",
    "redirect: 169": "behind the redirect",
    "redirect: [": "the same over IPv6",
    "/etc/hosts: ": "the names are there",
    "verified: ": "it is verified",
    "NET_ADMIN is dropped": "behind the last change of ours",
    "user: ": "the last before the app",
}
"""What a line of MOCK_LOG=debug says there, and where that is."""
UNDONE = {
    "no mock over IPv6": "it is found over IPv4 alone",
    "undo: the rules in table nat": "before the redirect is taken out again",
    "undo: the rules in table filter": "before the guard is",
}
"""The same where the proof fails."""
SOMETIMES = ("the system resolver has no address", "DNS ")
"""Lines of a look-up that takes long, on a busy machine: DNS is what other cases are about."""
LIMIT = 2.0
SLACK = 1.0
"""Seconds that strace adds, and that a start spends being stopped at its lines."""
SETTINGS = {"MOCK_LOG": "debug", "MOCK_ENDPOINTS": "aws,gcp", "MOCK_USER": "1:1"}
FAILING = {"MOCK_LOG": "debug", "MOCK_PORT": FAULTY_PORT}
STOPPING = strace(Injection("write", "signal=STOP"))
"""Stops a process, though not its children, at each line that it writes."""


@pytest.fixture(scope="module")
def judge(judge: Judge) -> Judge:
    """Give both hosts IPv6 too, a name for both addresses of the mock, and a mock beside that never says the same."""
    cloud = judge.cloud
    for host, address in ((cloud.mock, V6.mock), (cloud.app, V6.app)):
        host.ip("address", "add", f"{address}/{V6.length}", "dev", "eth0", "nodad")
    cloud.start_dns(f"{NAME}={V4.mock},{V6.mock}")
    cloud.start_faulty("GET=count", port=FAULTY_PORT)
    return judge


def played(judge: Judge, point: str, backend: str, *, whom: str, how: signal.Signals, limit: float) -> Ended | None:
    """Start, do that to the wrapper or to its helper at a point, and return how it ended; None without a helper."""
    judge.clean()
    judge.cloud.app.ip("route", "del", "default")
    chosen = FAILING if point in UNDONE else SETTINGS
    environ = judge.cloud.settings(None, **chosen, MOCK_BACKEND=backend, MOCK_TIMEOUT=f"{limit:g}")
    began = time.monotonic()
    try:
        with judge.cloud.app.popen(
            *(*STOPPING, DETOUR, *ANY_USERS_APP), environ=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as strace:
            assert strace.stderr is not None
            target, said, hit = 0, "", False
            for line in strace.stderr:
                said += line
                target = target or child_of(strace.pid)
                if not hit and line.partition(" ms  ")[2].startswith(point):
                    hit = True
                    helpers = children(target)
                    if whom == "helper" and not helpers:
                        strace.kill()
                        os.kill(target, signal.SIGKILL)
                        return None
                    for pid in [target] if whom == "wrapper" else helpers:
                        os.kill(pid, how)
                    # No point is of interest after this one; and what stops at each write is the app too, in the end.
                    threading.Thread(target=keep_going, args=(target,), daemon=True).start()
                if not hit:
                    go_on(target)
            assert hit, said
            out = strace.stdout.read() if strace.stdout else ""
            status = strace.wait()
    finally:
        judge.cloud.app.ip("route", "add", "default", "via", MOCK)
    lines = [line for line in said.splitlines(keepends=True) if " ms  " not in line]
    if status == -signal.SIGKILL:
        lines = []
    return judge.ended(status, out, "".join(lines), time.monotonic() - began, limit)


def children(pid: int) -> list[int]:
    """Return the processes that a process has."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as found:
            return [int(child) for child in found.read().split()]
    except OSError:
        return []  # it has ended


def child_of(pid: int) -> int:
    """Return what strace runs."""
    while not (found := children(pid)):
        time.sleep(0.001)
    return found[0]


def keep_going(pid: int) -> None:
    """Let a process go on whenever it has stopped, to its end."""
    while go_on(pid):
        pass


def go_on(pid: int) -> bool:
    """Let a process go on once it has stopped; say whether it is still there."""
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
def test_at_a_named_point(judge: Judge, how: str, point: str, backend: str) -> None:
    """The contract holds; a helper that hangs does not hold the start beyond its deadline; the next start is whole."""
    whom, what = HOW[how]

    def play(longer: float) -> Ended:
        end = played(judge, point, backend, whom=whom, how=what, limit=LIMIT * longer)
        assert end is not None, "the helper was not there"
        return end

    signals = (what,) if whom == "wrapper" else ()
    end = judge.kept(play, Case(slack=SLACK, signals=signals))
    # Once it is verified, the helper is not needed any more.
    assert end.status != 0 or (whom == "helper" and point not in UNDONE)
    after = judge.start(MOCK_HOSTNAME=MOCK, MOCK_BACKEND=backend, MOCK_TIMEOUT="20")
    assert after.status == 0, f"{after}"


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_line_of_a_start_is_a_named_point(judge: Judge, backend: str) -> None:
    """The lists are complete, and nothing in them is of yesterday."""
    said = []
    judge.cloud.app.ip("route", "del", "default")
    try:
        for settings, status in ((SETTINGS, 0), (FAILING, 125)):
            judge.clean()
            environ = judge.cloud.settings(None, **settings, MOCK_BACKEND=backend, MOCK_TIMEOUT="20")
            done = judge.cloud.app.run(DETOUR, *ANY_USERS_APP, environ=environ, check=False)
            assert done.returncode == status, done
            said += [line.partition(" ms  ")[2] for line in done.stderr.splitlines() if " ms  " in line]
    finally:
        judge.cloud.app.ip("route", "add", "default", "via", MOCK)
    points = (*POINTS, *UNDONE)
    assert [line for line in said if not line.startswith((*points, *SOMETIMES))] == []
    assert [point for point in points if not any(line.startswith(point) for line in said)] == []
