"""What the sidecar knows about each service."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from imds_detour.config.services import Service
from imds_detour.ctl.sidecar.state import ServiceState
from imds_detour.result import Target

FIRST_PAUSE = 0.1
"""Seconds between the first searches for a mock that does not answer."""
NOT_PROBED = "not probed yet"


@dataclass(slots=True, eq=False)
class ServiceStatus:
    """What the sidecar knows about one service."""

    service: Service  # the service
    targets: tuple[Target, ...] = ()  # where it leads; empty while its mock does not answer
    due: float = 0.0  # when to probe it, or to search for its mock, by time.monotonic()
    search_due: float = 0.0  # when to search for a mock that has moved, at the earliest
    # whether the mock is known to be elsewhere, or over another IP version too, and is not found there yet
    moved: bool = False
    pause: float = FIRST_PAUSE  # seconds until the next search
    failed: bool = False  # whether the latest probe failed; a second failure closes the redirect
    text: str = NOT_PROBED  # the mock's last answer, or why there is no redirect
    since: float = field(default_factory=time.time)  # seconds since the epoch when the redirect was opened or closed
    probed: float = 0.0  # seconds since the epoch of the last probe; 0 before the first

    def state(self) -> ServiceState:
        """Return it for people and programs."""
        mocks = ", ".join(str(target.mock) for target in self.targets)
        return ServiceState(
            self.service.preset.name,
            tuple(map(str, self.service.preset.endpoints)),
            mocks or str(self.service.mock.host),
            bool(self.targets),
            self.text,
            self.since,
            self.probed,
        )
