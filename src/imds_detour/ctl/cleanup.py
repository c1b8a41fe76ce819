"""Remove everything that imds-detour has installed, and nothing else: for `remove`, and for the end of a sidecar."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from imds_detour.errors import DetourError
from imds_detour.redirect import LOCK_TIMEOUT
from imds_detour.system import etc_hosts, routes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from imds_detour.firewall.base import Firewall


@dataclass(frozen=True, slots=True)
class Removed:
    """What has been removed."""

    rules: Mapping[str, int]  # how many rules each firewall had, by its name
    names: bool  # whether /etc/hosts had lines of imds-detour
    routes: int  # how many routes
    failures: tuple[DetourError, ...]  # why something remains; empty if nothing does

    def require_all(self) -> None:
        """Raise a DetourError that names everything that remains, if anything does."""
        if self.failures:
            reasons = "; ".join(error.reason for error in self.failures)
            remedies = dict.fromkeys(error.remedy for error in self.failures if error.remedy)
            raise DetourError(self.failures[0].step, reasons, "; ".join(remedies))


def clean_up(firewalls: Iterable[Firewall]) -> Removed:
    """Remove redirects, guard, host names and routes, in this order: half removed is closed, not open.

    A failure does not keep the rest from being removed, except one of a firewall whose guard would then remain alone.
    """
    rules: dict[str, int] = {}
    failures: list[DetourError] = []
    for firewall in firewalls:
        try:
            rules[firewall.name] = sum(len(firewall.apply(table, (), LOCK_TIMEOUT)) for table in ("nat", "filter"))
        except DetourError as error:
            failures.append(error)
    names = False
    try:
        names = etc_hosts.remove()
    except DetourError as error:
        failures.append(error)
    removed = 0
    try:
        installed = routes.installed_routes()
    except DetourError as error:
        failures.append(error)
        installed = ()
    for route in installed:
        try:
            routes.remove(route)
            removed += 1
        except DetourError as error:
            failures.append(error)
    return Removed(rules, names, removed, tuple(failures))
