"""Where the mocks are by now: each name is looked up again when its answer has had its time, or is doubted."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from imds_detour.deadline import Deadline
from imds_detour.discovery.dns import lookup
from imds_detour.errors import DetourError, NotYetError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from imds_detour.discovery.dns.lookup import Resolution
    from imds_detour.endpoint import Address

SHORTEST, LONGEST = 1.0, 60.0
"""Seconds from one look-up of a name to the next, whatever TTL a server gives. Docker's own gives 600, for containers
that come and go: there it is the probe that notices."""
UNDATED = 2.0
"""Seconds for which an answer without a TTL holds: a line of /etc/hosts."""
IN_DOUBT = 0.2
"""Seconds from one look-up to the next while the mock is not where its name leads."""
TIMEOUT = 1.0
"""Seconds for one look-up."""


@dataclass(slots=True)
class _Name:
    resolution: Resolution | None = None
    due: float = -inf
    asked: float = -inf
    failure: DetourError | None = None


class FollowedNames:
    """The mocks' names. While DNS fails, what it said last goes on to hold: it is the probe that decides."""

    def __init__(
        self, hosts: Iterable[str | Address], clock: Callable[[], float], trace: Callable[[str], None]
    ) -> None:
        """Know them; none is looked up yet. ``clock`` is monotonic, in seconds."""
        self._clock = clock
        self._trace = trace
        self._known = {host: _Name() for host in hosts}
        self.lookups = 0
        self.failures = 0

    def resolve(self, host: str | Address) -> Resolution:
        """Return where a host is, looked up anew if it is time.

        Raises:
            DetourError: when no mock can be where its name leads.
            NotYetError: when nobody has an answer, and nobody has had one.

        """
        name, now = self._known[host], self._clock()
        if now >= name.due:
            self._look_up(host, name, now)
        if name.resolution is None:
            assert name.failure is not None  # noqa: S101  (it has been looked up, to no avail)
            raise name.failure
        return name.resolution

    def invalidate(self, host: str | Address) -> None:
        """Look it up again soon: where it leads, there is no mock."""
        name = self._known[host]
        name.due = min(name.due, name.asked + IN_DOUBT)

    def due(self, host: str | Address) -> float:
        """Return when its next look-up is due, on the clock."""
        return self._known[host].due

    def _look_up(self, host: str | Address, name: _Name, now: float) -> None:
        self.lookups += 1
        name.asked = now
        try:
            found = lookup.dated(host, Deadline(TIMEOUT), self._trace)
        except DetourError as error:
            self.failures += 1
            prefix = f"cannot resolve {host}: " if isinstance(error, NotYetError) else ""
            name.failure = type(error)(error.step, prefix + error.reason, error.remedy)
            name.due = now + SHORTEST
            return
        name.resolution, name.failure = found, None
        name.due = now + (UNDATED if found.ttl is None else min(max(found.ttl, SHORTEST), LONGEST))
