"""The firewalls that can be looked at here, whichever of them holds rules of ours."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from imds_detour import routes
from imds_detour.backends.legacy import LegacyFirewall
from imds_detour.backends.nft import NftFirewall
from imds_detour.errors import DetourError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imds_detour.backends import Firewall


@contextmanager
def usable() -> Iterator[list[Firewall]]:
    """Give the firewalls that work here.

    Raises:
        DetourError: when none does, for the reason that nftables has, which needs least.

    """
    legacy, nft = LegacyFirewall(routes.ip_versions()), NftFirewall()
    refusal: DetourError | None = None
    working: list[Firewall] = []
    try:
        for firewall in (legacy, nft):
            try:
                firewall.require()
            except DetourError as error:
                refusal = error
            else:
                working.append(firewall)
        if not working and refusal:
            raise refusal
        yield working
    finally:
        legacy.close()
