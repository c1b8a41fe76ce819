"""The sidecar while a mock is away or moves: it costs little, and services with one address go together."""

from __future__ import annotations

import re
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.sidecars import LISTEN, SECOND, Sidecar, asked, count, data, move, share, until
from tests.world import FAULTYHTTP, INSTANCE, MOCK, PORT

if TYPE_CHECKING:
    from tests.world import World

WATCHED = 4.0
"""Seconds for which its processor time is watched."""
LITTLE = 0.15
"""Of a processor. What waits takes a fiftieth of one here, and what spins all that it is given."""
SOON = 5.0
"""Seconds: 1 for the TTL, some for a busy machine."""


def test_waiting_for_a_mock_costs_little_and_it_is_found_soon(world: World, sidecars: list[Sidecar]) -> None:
    """Every pod of a cluster may wait; searches are a second apart by then, and nothing happens in between."""
    world.start_dns()
    sidecars.append(sidecar := Sidecar(world))
    sidecar.says("aws is closed while there is no mock")
    assert share(sidecar.process.pid, WATCHED) < LITTLE
    world.start_mock()
    there = time.monotonic()
    sidecar.says("verified")
    assert time.monotonic() - there < SOON
    assert asked(world) == INSTANCE


def test_a_name_that_leads_where_no_mock_is_costs_little(world: World, sidecars: list[Sidecar], zone: str) -> None:
    """The mock answers where it was: it is held to, the other place is searched, and led to once there is one."""
    assert zone
    world.start_mock(at=MOCK)
    sidecars.append(sidecar := Sidecar(world, "--listen", LISTEN))
    sidecar.says("verified")
    move(world, SECOND)
    seen = count(sidecar, "lookups")
    until(lambda: count(sidecar, "lookups"), lambda value: value >= seen + 2)
    assert share(sidecar.process.pid, WATCHED) < LITTLE
    assert (sidecar.get("/readyz")[0], asked(world)) == (200, INSTANCE)
    world.start_mock(at=SECOND)
    there = time.monotonic()
    sidecar.says(re.escape(f"({SECOND}:{PORT})"))
    assert time.monotonic() - there < SOON


@pytest.mark.parametrize("old", ["gone", "answers"])
def test_services_that_share_an_address_follow_their_mock_together(
    world: World, sidecars: list[Sidecar], zone: str, old: str
) -> None:
    """One mock for aws and gcp moves: both are verified at its new address soon after."""
    assert zone
    mock = world.start_mock("--data", data(world, "i-00000000000000001"), at=MOCK)
    sidecars.append(sidecar := Sidecar(world, "--listen", LISTEN, "--every", "1", MOCK_ENDPOINTS="aws,gcp"))
    sidecar.says("verified IMDSv2 i-00000000000000001")
    sidecar.says("verified gcp")
    world.start_mock("--data", data(world, "i-00000000000000002"), at=SECOND)
    if old == "gone":
        mock.kill()
        mock.wait()
    move(world, SECOND)
    moved = time.monotonic()
    sidecar.says(re.escape(f"({SECOND}:{PORT})") + ".*verified IMDSv2 i-00000000000000002")
    sidecar.says(re.escape(f"({SECOND}:{PORT})") + ".*verified gcp")
    assert time.monotonic() - moved < SOON
    assert until(lambda: sidecar.get("/readyz")[0], lambda status: status == 200) == 200
    assert asked(world) == "i-00000000000000002"


def test_nobody_moves_to_a_mock_that_does_not_answer_for_all(world: World, sidecars: list[Sidecar], zone: str) -> None:
    """Where the name leads, aws is answered and gcp is not: both stay where both are answered, until that one goes."""
    assert zone
    mock = world.start_mock(at=MOCK)
    sidecars.append(sidecar := Sidecar(world, "--listen", LISTEN, "--every", "0.5", MOCK_ENDPOINTS="aws,gcp"))
    sidecar.says("verified IMDSv2")
    sidecar.says("verified gcp")
    world.start(world.mock, sys.executable, FAULTYHTTP, f"{SECOND}:{PORT}", "GET=body:i-00000000000000002")
    move(world, SECOND)
    seen = count(sidecar, "lookups")
    until(lambda: count(sidecar, "lookups"), lambda value: value >= seen + 3)
    assert (sidecar.get("/readyz")[0], asked(world)) == (200, INSTANCE)
    mock.kill()
    sidecar.says("gcp is closed while there is no mock")
    assert until(lambda: asked(world), lambda seen: seen == "i-00000000000000002") == "i-00000000000000002"
