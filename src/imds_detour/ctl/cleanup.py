"""Take out everything of ours, and nothing else: for `remove`, and for the end of a sidecar."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from imds_detour.redirect import LOCK_TIMEOUT
from imds_detour.system import etc_hosts, routes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from imds_detour.firewall.base import Firewall


@dataclass(frozen=True, slots=True)
class Cleared:
    """What was there, and is there no more.

    Attributes:
        rules: how many of ours each firewall had, by its name.
        names: whether /etc/hosts had lines of ours.
        routes: how many routes were ours.

    """

    rules: Mapping[str, int]
    names: bool
    routes: int


def clear(firewalls: Iterable[Firewall]) -> Cleared:
    """Take out redirect, guard, host names and routes, in this order: what is half cleared is closed, not open.

    Raises:
        DetourError: when a firewall does not give its rules up.

    """
    rules = {
        firewall.name: sum(len(firewall.apply(table, (), LOCK_TIMEOUT)) for table in ("nat", "filter"))
        for firewall in firewalls
    }
    names = etc_hosts.remove()
    ours = routes.ours()
    for route in ours:
        routes.remove(route)
    return Cleared(rules, names, len(ours))
