"""While a start waits, is lied to or fails, another process sends to the metadata address without a pause."""

import subprocess
import threading
import time
from dataclasses import replace

import pytest

from tests.chaos.cases import DNS, HTTP
from tests.chaos.contract import ANY_USERS_APP, Ended, Judge, violations
from tests.chaos.test_campaign import played
from tests.chaos.test_points import STOPPING, child_of, go_on, keep_going
from tests.support.hosts.cloud import BACKENDS, LONG, REFUSED
from tests.support.hosts.network import DETOUR
from tests.support.marks import first_quick

CASES = {name: case for name, case in {**DNS, **HTTP}.items() if not case.prefix and not case.signals}
STRIDE = 1 if LONG else 19
GUARD, UNDO = "guard: ", "undo: the rules in table filter"
SLACK = 2.0
"""Seconds that strace and the stops at each line add."""


def flooded(judge: Judge, since: str, **settings: str) -> Ended:
    """Start, and flood the metadata address from a line on, until the end or the removal of the guard."""
    cloud = judge.cloud
    environ = cloud.settings(None, **settings, MOCK_LOG="debug")
    limit = float(environ["MOCK_TIMEOUT"])
    began, output, target, flood = time.monotonic(), "", 0, None
    with cloud.app.popen(
        *(*STOPPING, DETOUR, *ANY_USERS_APP), environ=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as strace:
        assert strace.stderr is not None
        for line in strace.stderr:  # the start stops at each
            output += line
            target = target or child_of(strace.pid)
            text = line.partition(" ms  ")[2]
            if flood is None and text.startswith(since):
                judge.seen = cloud.seen()  # connections of the case before sent packets after its rules were removed
                flood = cloud.program(cloud.app, "clients/flood.py", cloud.ip.metadata)
                assert (flood.ask("1") == REFUSED) is (since == GUARD)
            if flood and text.startswith(UNDO):
                flood.end()
            if "; exec " in line:  # the app's lines are not stops
                threading.Thread(target=keep_going, args=(target,), daemon=True).start()
            else:
                go_on(target)
        out = strace.stdout.read() if strace.stdout else ""
        status = strace.wait()
    seconds = time.monotonic() - began
    assert flood, output
    if UNDO not in output:
        flood.end()
    lines = [line for line in output.splitlines(keepends=True) if " ms  " not in line]
    return judge.ended(status, out, "".join(lines), seconds, limit)


@pytest.mark.parametrize(
    ("name", "backend"), first_quick([(name, BACKENDS[n // STRIDE % 2]) for n, name in enumerate(CASES)][::STRIDE])
)
def test_the_guard_stops_every_packet_during_faults(judge: Judge, name: str, backend: str) -> None:
    """From the guard's installation on, no TCP, UDP, ICMP or other packet reaches the real service, whatever fails."""
    case = replace(CASES[name], slack=CASES[name].slack + SLACK)

    def play(longer: float) -> Ended:
        with played(judge, case, backend, longer, lambda **settings: flooded(judge, GUARD, **settings)) as end:
            return end

    judge.until_kept(play, case)


def test_the_judge_detects_the_flood_without_a_guard(judge: Judge) -> None:
    """Negative control: with MOCK_GUARD=off, capture and counters see the flood, and the judge reports it."""
    case = replace(DNS["silent"], settings={"MOCK_GUARD": "off"})
    with played(judge, case, "nft", 1, lambda **settings: flooded(judge, "", **settings)) as end:
        assert "something reached the real service" in violations(end)
