"""What a follower knows of one service, and the habits that it has."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from imds_detour.ctl.sidecar.state import ServiceState

if TYPE_CHECKING:
    from collections.abc import Callable

    from imds_detour.config.services import Service
    from imds_detour.result import Target

EVERY = 5.0
"""Seconds from one probe to the next, by default."""
FIRST_PAUSE = 0.1
"""Seconds from one search for a mock that is not there to the next, at first."""
UNKNOWN = "not looked for yet"


@dataclass(frozen=True, slots=True)
class Habits:
    """How to go about it.

    Attributes:
        every: seconds from one probe to the next.
        guard: whether the metadata addresses are closed to whatever is not redirected.
        clock: a monotonic clock, in seconds.

    """

    every: float = EVERY
    guard: bool = True
    clock: Callable[[], float] = time.monotonic


HABITS = Habits()


@dataclass(slots=True, eq=False)
class Watch:
    """One service, and how it stands with it.

    Attributes:
        service: which one.
        target: where it leads; None while there is no mock.
        due: when to look next, on the clock: for the mock where there is none, else whether it still answers.
        search_due: not before then is a mock that has moved searched for.
        moved: whether it is known to be elsewhere, or by another IP version as well, and has not been found there.
        pause: seconds from one search to the next, by now.
        failed: whether the latest probe failed; the next one that does closes the redirect.
        text: who answered last, or why there is no redirect.
        since: seconds since the epoch at which it came to be so.
        probed: seconds since the epoch of the last probe; 0 when there was none.

    """

    service: Service
    target: Target | None = None
    due: float = 0.0
    search_due: float = 0.0
    moved: bool = False
    pause: float = FIRST_PAUSE
    failed: bool = False
    text: str = UNKNOWN
    since: float = field(default_factory=time.time)
    probed: float = 0.0

    def state(self) -> ServiceState:
        """Return what is known now, for people and programs."""
        mocks = self.target.mocks if self.target else ()
        return ServiceState(
            self.service.preset.name,
            tuple(map(str, self.service.preset.endpoints)),
            ", ".join(map(str, mocks)) or f"{self.service.mock.host}",
            self.target is not None,
            self.text,
            self.since,
            self.probed,
        )
