"""The sidecar while a mock is gone or moves: it costs little, and services with one address move together."""

import re
import sys
import time

import pytest

from tests.support.hosts.network import FAULTY_HTTP, INSTANCE, MOCK, PORT, Network
from tests.support.hosts.sidecars import LISTEN, SECOND, Sidecars, asked, count, data, move, share, until

WATCHED = 5.0
"""Seconds for which the processor time is measured."""
LITTLE = 0.05
"""The limit of the share of a processor, which a busy loop exceeds; see bench/NOTES.md."""
SOON = 5.0
"""Seconds: 1 for the TTL, and more for a busy machine."""


@pytest.mark.slow
def test_waiting_for_a_mock_costs_little_and_ends_soon(network: Network, sidecars: Sidecars) -> None:
    """A sidecar that waits for a mock uses little processor time, and verifies a new mock soon."""
    network.start_dns()
    sidecar = sidecars.start(says="aws is closed while there is no mock")
    used = share(sidecar.process.pid, WATCHED)
    print(f"processor {used:.2%} over {WATCHED:g} s")  # noqa: T201  (a figure, for -rP)
    assert used < LITTLE
    network.start_mock()
    began = time.monotonic()
    sidecar.says("verified")
    assert time.monotonic() - began < SOON
    assert asked(network) == INSTANCE


@pytest.mark.slow
def test_name_without_a_mock_at_its_address_costs_little(moving: Network, sidecars: Sidecars) -> None:
    """If the name moves to a silent address, the redirect stays; it moves when the new address answers."""
    moving.start_mock(at=MOCK)
    moving.start_mock(at=SECOND)
    chain = f"type filter hook input priority 0;\nip daddr {SECOND} tcp dport {PORT} drop"
    moving.mock.run("nft", f"table ip silent {{ chain silence {{ {chain}\n}}\n}}")
    sidecar = sidecars.start("--listen", LISTEN)
    move(moving, SECOND)
    lookups = count(sidecar, "lookups")
    until(lambda: count(sidecar, "lookups"), lambda value: value >= lookups + 2)
    used = share(sidecar.process.pid, WATCHED)
    print(f"processor {used:.2%} over {WATCHED:g} s")  # noqa: T201  (a figure, for -rP)
    assert used < LITTLE
    assert (sidecar.get("/readyz")[0], asked(moving)) == (200, INSTANCE)
    moving.mock.run("nft", "delete table ip silent")
    began = time.monotonic()
    sidecar.says(re.escape(f"({SECOND}:{PORT})"))
    assert time.monotonic() - began < SOON


@pytest.mark.slow
@pytest.mark.parametrize("old", ["gone", "answers"])
def test_services_that_share_an_address_follow_their_mock_together(
    moving: Network, sidecars: Sidecars, old: str
) -> None:
    """When the mock of aws and gcp moves, both are verified at its new address soon after."""
    mock = moving.start_mock("--data", data(moving, "i-00000000000000001"), at=MOCK)
    sidecar = sidecars.start("--listen", LISTEN, "--every", "1", MOCK_ENDPOINTS="aws,gcp", says="verified IMDSv2 i-0+1")
    sidecar.says("verified gcp")
    moving.start_mock("--data", data(moving, "i-00000000000000002"), at=SECOND)
    if old == "gone":
        mock.kill()
        mock.wait()
    move(moving, SECOND)
    moved = time.monotonic()
    sidecar.says(re.escape(f"({SECOND}:{PORT})") + ".*verified IMDSv2 i-00000000000000002")
    sidecar.says(re.escape(f"({SECOND}:{PORT})") + ".*verified gcp")
    assert time.monotonic() - moved < SOON
    assert until(lambda: sidecar.get("/readyz")[0], lambda status: status == 200) == 200
    assert asked(moving) == "i-00000000000000002"


@pytest.mark.slow
def test_services_move_only_to_a_mock_that_answers_all(moving: Network, sidecars: Sidecars) -> None:
    """If the new mock answers aws and not gcp, both services stay with the old one until it ends."""
    mock = moving.start_mock(at=MOCK)
    sidecar = sidecars.start("--listen", LISTEN, "--every", "0.5", MOCK_ENDPOINTS="aws,gcp", says="verified IMDSv2")
    sidecar.says("verified gcp")
    moving.start(moving.mock, sys.executable, FAULTY_HTTP, f"{SECOND}:{PORT}", "GET=body:i-00000000000000002")
    move(moving, SECOND)
    lookups = count(sidecar, "lookups")
    until(lambda: count(sidecar, "lookups"), lambda value: value >= lookups + 3)
    assert (sidecar.get("/readyz")[0], asked(moving)) == (200, INSTANCE)
    mock.kill()
    sidecar.says("gcp is closed while there is no mock")
    assert until(lambda: asked(moving), lambda instance: instance == "i-00000000000000002") == "i-00000000000000002"
