"""Many pods starting at once against one mock. ``LONG=1`` takes the sizes of docs/scale.md."""

from __future__ import annotations

import pytest

from tests.support.hosts.cloud import LONG
from tests.support.hosts.fleet import Fleet

SMALL, LARGE = (50, 200) if LONG else (6, 18)
LATE = 20.0 if LONG else 10.0
"""Seconds until the mock appears to those who wait for it; their pauses are a hundredth of that, give or take half."""


def test_a_crowd_is_verified_and_costs_as_much_each_as_a_few() -> None:
    """All are verified, by about two DNS queries and four requests each; processor time grows with their number."""
    outcomes = {}
    for size in (SMALL, LARGE):
        with Fleet(size) as fleet:
            outcomes[size] = fleet.start(MOCK_BACKEND="nft")
    for size, seen in outcomes.items():
        assert seen.verified == size
        assert seen.requests == pytest.approx(4, abs=1)
        # Two, unless a pod had to wait so long for a processor that the servers were asked beside the system resolver.
        assert 2 <= seen.queries <= 8
    assert outcomes[LARGE].cpu < 2 * outcomes[SMALL].cpu


@pytest.mark.slow
def test_a_crowd_that_waits_does_not_come_in_step() -> None:
    """All started at one moment; when the mock appears, they come spread over the time of a pause."""
    with Fleet(LARGE) as fleet:
        seen = fleet.start(LATE, MOCK_BACKEND="nft")
    assert seen.verified == LARGE
    assert len(seen.arrivals) == LARGE
    assert seen.busiest(0.02) < 0.5
