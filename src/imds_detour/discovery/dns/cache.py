"""The addresses of the mocks' names: each answer is kept for a time, and dropped early when no mock is there."""

from __future__ import annotations

from imds_detour.errors import DetourError, NotYetError
from imds_detour.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from imds_detour.deadline import Deadline
    from imds_detour.discovery.dns.lookup import Resolution
    from imds_detour.endpoint import Address

    Host = str | Address


class Lifetimes(Value):
    """How long an answer is used, in seconds."""

    minimum: float  # at least, whatever TTL a server gives
    maximum: float  # at most, likewise
    without_ttl: float  # for an answer that has no TTL
    invalid: float  # between two look-ups while no mock is at the addresses
    keep: bool  # whether the last answer is used while look-ups fail


START = Lifetimes(minimum=2.0, maximum=2.0, without_ttl=2.0, invalid=0.0, keep=False)
"""For a start: an answer is used while the mock is about to listen, and no longer."""


class ResolverCache:
    """Keeps the answer for each host, and looks hosts up again."""

    def __init__(
        self,
        lookups: Iterable[tuple[Host, Callable[[Deadline, Callable[[str], None]], Resolution]]],
        lifetimes: Lifetimes,
        clock: Callable[[], float],
        trace: Callable[[str], None],
    ) -> None:
        """Keep nothing yet; each host comes with the function that looks it up."""
        self._lifetimes = lifetimes
        self._clock = clock
        self._trace = trace
        self._entries = {host: _Entry(look_up) for host, look_up in lookups}
        self.lookups = 0  # so far
        self.failures = 0  # look-ups without an answer
        self.ipv6_since: float | None = None  # when Search first asked a mock over IPv6 too, on the clock

    def resolve(self, host: Host, deadline: Deadline) -> Resolution:
        """Return a host's addresses, looked up if it is time. NotYetError without any, DetourError if no mock fits."""
        entry, now = self._entries[host], self._clock()
        if now >= entry.due:
            self._look_up(host, entry, now, deadline)
        if entry.resolution is not None and (self._lifetimes.keep or entry.failure is None):
            return entry.resolution
        assert entry.failure is not None  # noqa: S101  (the look-up has failed)
        raise entry.failure

    def invalidate(self, host: Host) -> None:
        """Look a host up again soon: no mock is at its addresses."""
        entry = self._entries[host]
        entry.due = min(entry.due, entry.asked + self._lifetimes.invalid)

    def due(self, host: Host) -> float:
        """Return the time of a host's next look-up, on the clock."""
        return self._entries[host].due

    def _look_up(self, host: Host, entry: _Entry, now: float, deadline: Deadline) -> None:
        limits = self._lifetimes
        self.lookups += 1
        entry.asked = now
        try:
            resolution = entry.look_up(deadline, self._trace)
        except DetourError as error:
            self.failures += 1
            prefix = f"cannot resolve {host}: " if isinstance(error, NotYetError) else ""
            entry.failure = type(error)(error.step, prefix + error.reason, error.remedy)
            entry.due = now + limits.minimum if limits.keep else now
            return
        if resolution != entry.resolution and isinstance(host, str):
            addresses = ", ".join(map(str, resolution.addresses))
            self._trace(f"{host} is at {addresses}, says the {resolution.source}")
        entry.resolution, entry.failure = resolution, None
        ttl = limits.without_ttl if resolution.ttl is None else resolution.ttl
        entry.due = now + min(max(ttl, limits.minimum), limits.maximum)


class _Entry:
    __slots__ = ("asked", "due", "failure", "look_up", "resolution")

    def __init__(self, look_up: Callable[[Deadline, Callable[[str], None]], Resolution]) -> None:
        self.look_up = look_up
        self.resolution: Resolution | None = None
        self.failure: DetourError | None = None
        self.due = self.asked = float("-inf")


def start_cache(hosts: Iterable[Host], clock: Callable[[], float], trace: Callable[[str], None]) -> ResolverCache:
    """Return the cache of a start, and start to look all hosts up at once, in threads. Fork before that."""
    from imds_detour.discovery.dns.lookup import Lookup  # noqa: PLC0415  (the sidecar's cache does without)

    lookups = {host: Lookup(host) for host in hosts}
    for lookup in lookups.values():
        lookup.start()
    return ResolverCache(((host, lookup.attempt) for host, lookup in lookups.items()), START, clock, trace)
