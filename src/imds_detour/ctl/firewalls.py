"""The firewalls that can be looked at here, whichever of them holds rules of ours."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imds_detour.errors import DetourError
from imds_detour.firewall.iptables import helpers
from imds_detour.firewall.iptables.backend import LegacyFirewall
from imds_detour.firewall.nftables.backend import NftFirewall
from imds_detour.system import ip_versions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from imds_detour.firewall.base import Firewall


@dataclass(frozen=True, slots=True)
class Usable:
    """What can be looked at, and what cannot.

    Attributes:
        working: the firewalls that can.
        refused: why the others cannot, by their names.

    """

    working: tuple[Firewall, ...]
    refused: Mapping[str, DetourError]


@contextmanager
def usable() -> Iterator[Usable]:
    """Give the firewalls that work here.

    Raises:
        DetourError: when none does, for the reason that nftables has, which needs least.

    """
    refused: dict[str, DetourError] = {}
    candidates: list[LegacyFirewall | NftFirewall] = [NftFirewall()]
    try:
        candidates.insert(0, LegacyFirewall(helpers.start(ip_versions.here())))
    except DetourError as error:  # no process to be had; nftables needs none
        refused[LegacyFirewall.name] = error
    working: list[Firewall] = []
    try:
        for firewall in candidates:
            try:
                firewall.require()
            except DetourError as error:
                refused[firewall.name] = error
            else:
                working.append(firewall)
        if not working:
            raise refused[NftFirewall.name]
        yield Usable(tuple(working), refused)
    finally:
        for firewall in candidates:
            firewall.close()
