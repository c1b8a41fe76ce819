"""The addresses of the mocks' names: each answer is kept for a time, and dropped early when no mock is there."""

from __future__ import annotations

from imds_detour.errors import DetourError, NotYetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from imds_detour.deadline import Deadline
    from imds_detour.discovery.dns.lookup import Resolution
    from imds_detour.endpoint import Address

    Host = str | Address
    LookUp = Callable[[Deadline, Callable[[str], None]], Resolution]

LIFETIME = 2.0
"""Seconds for which a start uses an answer: while the mock is about to listen, and no longer."""


class ResolverCache:
    """Keeps the answer for each host, and looks hosts up again."""

    def __init__(
        self, lookups: Iterable[tuple[Host, LookUp]], clock: Callable[[], float], trace: Callable[[str], None]
    ) -> None:
        self._lookups = dict(lookups)
        self._clock = clock
        self._trace = trace
        self._answers: dict[Host, Resolution] = {}
        self.due = dict.fromkeys(self._lookups, float("-inf"))  # the next look-up of each host, on the clock
        self.ipv6_since: float | None = None  # when Search first asked a mock over IPv6 too, on the clock

    def resolve(self, host: Host, deadline: Deadline) -> Resolution:
        """Return a host's addresses, looked up if it is time. NotYetError without any, DetourError if no mock fits."""
        now = self._clock()
        if now >= self.due[host]:
            self.invalidate(host)  # a look-up that fails is repeated at once
            self._answers[host] = self._look_up(host, deadline)
            self.due[host] = now + LIFETIME
        return self._answers[host]

    def invalidate(self, host: Host) -> None:
        """Look a host up again soon: no mock is at its addresses."""
        self.due[host] = float("-inf")

    def _look_up(self, host: Host, deadline: Deadline) -> Resolution:
        try:
            resolution = self._lookups[host](deadline, self._trace)
        except DetourError as error:
            prefix = f"cannot resolve {host}: " if isinstance(error, NotYetError) else ""
            error.reason = prefix + error.reason
            raise
        if resolution != self._answers.get(host) and isinstance(host, str):
            addresses = ", ".join(map(str, resolution.addresses))
            self._trace(f"{host} is at {addresses}, says the {resolution.source}")
        return resolution


def start_cache(hosts: Iterable[Host], clock: Callable[[], float], trace: Callable[[str], None]) -> ResolverCache:
    """Return the cache of a start, and start to look all hosts up at once, in threads. Fork before that."""
    from imds_detour.discovery.dns.lookup import Lookup  # noqa: PLC0415  (the sidecar's cache does without)

    lookups = {host: Lookup(host) for host in hosts}
    for lookup in lookups.values():
        lookup.start()
    return ResolverCache(((host, lookup.attempt) for host, lookup in lookups.items()), clock, trace)
