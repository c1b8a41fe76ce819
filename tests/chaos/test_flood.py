"""While a start waits, is lied to or fails, another process sends to the metadata address without a pause."""

from dataclasses import replace
from functools import partial

import pytest

from tests.chaos.cases import DNS, HTTP
from tests.chaos.contract import Ended, Judge, violations
from tests.chaos.test_campaign import played
from tests.chaos.test_points import stepped, without_steps
from tests.support.hosts.cloud import BACKENDS, LONG, REFUSED, Program
from tests.support.marks import first_quick

CASES = {name: case for name, case in {**DNS, **HTTP}.items() if not case.prefix and not case.signals}
STRIDE = 1 if LONG else 19
GUARD = "guard: "
SLACK = 2.0
"""Seconds that strace and the stops at each line add."""


def flooded(judge: Judge, since: str, **settings: str) -> Ended:
    """Start, and flood the metadata address from a line on, until the end: the guard stays after a failure."""
    cloud = judge.cloud
    environ = cloud.settings(None, **settings, MOCK_LOG="debug")
    floods: list[Program] = []

    def flood(line: str, _: int) -> bool:
        text = line.partition(" ms  ")[2]
        if not floods and text.startswith(since):
            judge.seen = cloud.seen()  # connections of the case before sent packets after the judge removed its rules
            floods.append(cloud.program(cloud.app, "clients/flood.py", cloud.ip.metadata))
            assert (floods[0].ask("1") == REFUSED) is (since == GUARD)
        return "; exec " in line  # the app's lines are not stops

    status, out, output, seconds = stepped(judge, environ, flood)
    assert floods, output
    floods[0].end()
    return judge.ended(status, out, without_steps(output), seconds, float(environ["MOCK_TIMEOUT"]))


@pytest.mark.parametrize(
    ("name", "backend"), first_quick([(name, BACKENDS[n // STRIDE % 2]) for n, name in enumerate(CASES)][::STRIDE])
)
def test_guard_stops_every_packet_during_faults(judge: Judge, name: str, backend: str) -> None:
    """From the guard's installation on, no TCP, UDP, ICMP or other packet reaches the real service, whatever fails."""
    case = replace(CASES[name], slack=CASES[name].slack + SLACK)
    judge.until_kept(lambda longer: played(judge, case, backend, longer, partial(flooded, judge, GUARD)), case)


def test_judge_detects_the_flood_without_a_guard(judge: Judge) -> None:
    """Negative control: with MOCK_GUARD=off, capture and counters see the flood, and the judge reports it."""
    end = played(judge, replace(DNS["silent"], settings={"MOCK_GUARD": "off"}), "nft", 1, partial(flooded, judge, ""))
    assert "something reached the real service" in violations(end)
