"""60 pods with the sidecar of deploy/kubernetes that start at once, probed by HTTP as a kubelet does.

tests/netns/test_scale.py makes the same run, with the limit of a busy machine.
"""

from __future__ import annotations

from bench.rows import Row, row

PODS, READY, LIMIT = 60, 60.0, 120.0
"""The number of pods, the target for the last of them in seconds, and the seconds after which the run ends."""


def missing() -> str:
    """Return why this cannot be measured; empty if it can."""
    try:
        import tests.support.hosts.sidecar_fleet  # noqa: F401, PLC0415  (needs the packages of the tests)
    except ImportError as error:
        return f"{PODS} sidecars at once: {error} (`scripts/setup test`)"
    return ""


def measure() -> list[Row]:
    """Return the rows, or none if the packages of the tests are not installed."""
    if missing():
        return []
    from tests.support.hosts.sidecar_fleet import REAL, SidecarFleet  # noqa: PLC0415  (as above)

    with SidecarFleet(PODS) as fleet:
        fleet.start_servers()
        if REAL not in fleet.ask() or not fleet.leaked():  # else 0 packets would mean nothing
            raise RuntimeError("without a sidecar, no packet reaches the real service")
        seen = fleet.roll_out(LIMIT)
    group = f"{PODS} sidecars at once"
    return [
        row(group, "not ready", "", [float(PODS - len(seen.seconds))], at_most=0),
        row(group, "until the last one is ready", "s", [max(seen.seconds, default=LIMIT)], at_most=READY),
        row(group, "packets to the real service", "", [float(seen.leaked)], at_most=0),
    ]
