"""Which redirects of ours stand, and their counters, for a health check: with as little as it takes to see them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from imds_detour.errors import DetourError
from imds_detour.firewall.nftables.backend import NftFirewall
from imds_detour.firewall.rules import Dnat
from imds_detour.system import capabilities

if TYPE_CHECKING:
    from imds_detour.endpoint import Endpoint
    from imds_detour.firewall.base import Firewall


class Looker:
    """Sees our redirects and their counters, as far as this process may."""

    def __init__(self) -> None:
        """Set out, with a helper process for legacy iptables where it may be needed; so come before any thread."""
        self.firewall: Firewall | None = None
        self.sure = False
        have = capabilities.effective()
        if have & capabilities.NET_ADMIN:
            nft = NftFirewall()
            # Without NET_RAW, and without a helper process, legacy iptables cannot be looked at.
            self.firewall = nft if nft.stands() or not have & capabilities.NET_RAW else _legacy() or nft

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self.firewall is not None:
            self.firewall.close()

    def mock_of(self, endpoint: Endpoint) -> Endpoint | None:
        """Return where an endpoint's connections go by a rule of ours; None where none is seen.

        Afterwards ``sure`` says whether none is seen because there is none.
        """
        if self.firewall is None:
            return None
        try:
            found = [installed.rule for installed in self.firewall.installed()]
        except DetourError:
            return None  # a library of legacy iptables is missing: then the answers alone must do
        self.sure = bool(found) or self.firewall.name != NftFirewall.name
        for rule in found:
            if (
                rule
                and isinstance(rule.target, Dnat)
                and (rule.destination, rule.port) == (endpoint.address, endpoint.port)
            ):
                return rule.target.to
        return None


def _legacy() -> Firewall | None:
    """Return legacy iptables, its helper process under way; None where no process can be had for it."""
    from imds_detour.firewall.iptables import helpers  # noqa: PLC0415  (the same)
    from imds_detour.firewall.iptables.backend import LegacyFirewall  # noqa: PLC0415  (the same)
    from imds_detour.system import ip_versions  # noqa: PLC0415  (nftables does not need it)

    try:
        return LegacyFirewall(helpers.start(ip_versions.here()))
    except DetourError:
        return None
