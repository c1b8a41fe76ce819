"""Where the mocks are: their names, looked up at once and side by side, and again while nobody answers there."""

from __future__ import annotations

from imds_detour.discovery.dns.lookup import Lookup
from imds_detour.errors import NotYetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from imds_detour.discovery.dns.lookup import Resolution
    from imds_detour.endpoint import Address
    from imds_detour.log import Log

FRESH = 2.0
"""Seconds for which an answer of DNS is used; then, while nobody answers there, the name is looked up again."""


class ResolverCache:
    """The names of all mocks, looked up at once and side by side, and again while nobody answers where they lead."""

    def __init__(self, hosts: Iterable[str | Address], log: Log) -> None:
        """Set out. Whoever forks does so before: a look-up is a thread."""
        self._log = log
        self._known = {host: _Name(host) for host in dict.fromkeys(hosts)}

    def resolve(self, host: str | Address) -> Resolution:
        """Return where a host is.

        Raises:
            DetourError: when no mock can be there.
            NotYetError: when nobody has an answer.

        """
        name = self._known[host]
        if name.resolution is not None and self._log.deadline.elapsed() < name.fresh_until:
            return name.resolution
        if name.resolution is not None and name.answered:
            # One that has answered would repeat itself; one that has not keeps trying, and keeps its threads few.
            name.lookup, name.answered = Lookup(host), False
        try:
            found = name.lookup.attempt(self._log.deadline, self._log.step)
        except NotYetError as error:
            raise NotYetError(error.step, f"cannot resolve {host}: {error.reason}") from None
        name.answered = True
        if found != name.resolution and isinstance(host, str):
            addresses = ", ".join(map(str, found.addresses))
            self._log.step(f"{found.name} is at {addresses}, says the {found.source}")
        name.resolution, name.fresh_until = found, self._log.deadline.elapsed() + FRESH
        return found

    def invalidate(self, host: str | Address) -> None:
        """Look a host up again at the next attempt: what was found was of no use."""
        self._known[host].fresh_until = 0.0


class _Name:
    def __init__(self, host: str | Address) -> None:
        self.lookup = Lookup(host)
        self.resolution: Resolution | None = None
        self.fresh_until = 0.0
        self.answered = False
