"""Many pods that start at once with one mock. ``LONG=1`` uses the sizes of docs/scale.md."""

import fcntl
from collections.abc import Iterator

import pytest

from tests.support.hosts.cloud import LONG
from tests.support.hosts.fleet import Fleet
from tests.support.hosts.network import INSTANCE
from tests.support.hosts.sidecar_fleet import REAL, SidecarFleet

SMALL, LARGE = (50, 200) if LONG else (6, 18)
LATE = 20.0 if LONG else 10.0
"""Seconds until the mock starts. The pauses of waiting starts are 6 % of that, longer or shorter by a quarter."""
READY = 60.0 if LONG else 120.0
"""Seconds until the last of 60 sidecars is ready, 15 on an idle machine. After 120 the kubelet would restart it."""


@pytest.fixture(autouse=True)
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let one fleet run at a time: all of pytest's workers share the folder of the lock."""
    with open(tmp_path_factory.getbasetemp().parent / "fleet.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def test_cost_of_a_start_is_constant() -> None:
    """Among many starts, each is verified with about two DNS queries and four requests, and costs as among few."""
    outcomes = {}
    for size in (SMALL, LARGE):
        with Fleet(size) as fleet:
            outcomes[size] = fleet.start(MOCK_BACKEND="nft")
    for size, seen in outcomes.items():
        assert seen.verified == size
        assert seen.requests == pytest.approx(4, abs=1)
        # Two, unless a pod waited so long for a processor that it asked the servers in addition to the system resolver.
        assert 2 <= seen.queries <= 8
    assert outcomes[LARGE].cpu < 2 * outcomes[SMALL].cpu


@pytest.mark.slow
def test_waiting_starts_spread_their_requests() -> None:
    """Many starts that wait since the same moment reach a new mock spread over the time of a pause."""
    with Fleet(LARGE) as fleet:
        seen = fleet.start(LATE, MOCK_BACKEND="nft")
    assert (seen.verified, len(seen.arrivals)) == (LARGE, LARGE)
    assert seen.busiest(0.02) < 0.5


@pytest.mark.slow
def test_sixty_sidecars_start_on_one_node() -> None:
    """60 pods with the manifest's sidecar, probed each second, become ready and send the real service no packet.

    Control: before that, an app's request reaches the real service and is counted.
    """
    with SidecarFleet(60) as fleet:
        fleet.start_servers()
        assert REAL in fleet.ask()
        assert fleet.leaked() > 0
        seen = fleet.roll_out(120.0)
    assert len(seen.seconds) == 60
    assert seen.seconds[-1] < READY
    assert (seen.leaked, *seen.answers) == (0, INSTANCE)
