"""What a follower knows of one service, and the habits that it has."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from imds_detour.ctl.following.state import ServiceState

if TYPE_CHECKING:
    from collections.abc import Callable

    from imds_detour.passages import Passage
    from imds_detour.services import Service

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


@dataclass(slots=True)
class Watch:
    """One service, and how it stands with it."""

    service: Service
    passage: Passage | None = None
    due: float = 0.0
    search_due: float = 0.0
    pause: float = FIRST_PAUSE
    failed: bool = False
    text: str = UNKNOWN
    since: float = field(default_factory=time.time)
    probed: float = 0.0

    def state(self) -> ServiceState:
        """Return what is known now, for people and programs."""
        mocks = self.passage.mocks if self.passage else ()
        return ServiceState(
            self.service.preset.name,
            tuple(map(str, self.service.preset.endpoints)),
            ", ".join(map(str, mocks)) or f"{self.service.mock.host}",
            self.passage is not None,
            self.text,
            self.since,
            self.probed,
        )
