"""Remove everything that imds-detour has installed, and nothing else: for `remove`, and for the end of a sidecar."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from imds_detour.errors import DetourError
from imds_detour.firewall.base import Firewall
from imds_detour.redirect import LOCK_TIMEOUT
from imds_detour.system import etc_hosts, routes


@dataclass(slots=True)
class Removed:
    """The result of a cleanup."""

    rules: Counter[str] = field(default_factory=Counter)  # number of removed rules, by the firewall's name
    names: bool = False  # whether lines in /etc/hosts were removed
    routes: int = 0  # number of removed routes
    failures: list[DetourError] = field(default_factory=list)  # the reasons why something remains

    @contextmanager
    def noting_failures(self) -> Iterator[None]:
        """Note that this block fails, instead of raising its DetourError."""
        try:
            yield
        except DetourError as error:
            self.failures.append(error)

    def require_all(self) -> None:
        """Raise a DetourError with all reasons and remedies if something remains."""
        if self.failures:
            reasons = dict.fromkeys(error.reason for error in self.failures)
            remedies = dict.fromkeys(error.remedy for error in self.failures if error.remedy)
            raise DetourError(self.failures[0].step, "; ".join(reasons), "; ".join(remedies))


def clean_up(firewalls: Iterable[Firewall]) -> Removed:
    """Remove redirects, guard, host names and routes, in this order: a partial removal leaves the addresses closed.

    After a failure the rest is removed too, but no guard whose redirects remain.
    """
    removed = Removed()
    for firewall in firewalls:
        with removed.noting_failures():
            for table in ("nat", "filter"):
                removed.rules[firewall.name] += len(firewall.apply(table, (), LOCK_TIMEOUT))
    with removed.noting_failures():
        removed.names = etc_hosts.remove()
    with removed.noting_failures():
        for route in routes.installed_routes():
            with removed.noting_failures():
                routes.remove(route)
                removed.routes += 1
    return removed
