"""Read imds-detour's redirects for a health check, which may have no capability."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from imds_detour.ctl.installed import summarize
from imds_detour.errors import DetourError
from imds_detour.firewall.iptables.preflight import readable_versions
from imds_detour.firewall.select import FirewallSelector
from imds_detour.system import capabilities

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imds_detour.endpoint import Endpoint
    from imds_detour.firewall.base import Firewall


class RuleReader:
    """Reads redirects, if this process may."""

    def __init__(self, firewall: Firewall | None) -> None:
        self.firewall = firewall  # None without NET_ADMIN
        self.complete = False  # whether the last read would have shown every redirect

    def mock_of(self, endpoint: Endpoint) -> Endpoint | None:
        """Return the mock that an endpoint is redirected to, None if no redirect can be seen."""
        if self.firewall is None:
            return None
        try:
            installed = self.firewall.installed()
        except DetourError:
            return None  # a library of legacy iptables is missing, for example
        # nftables guards IPv6 for legacy iptables too. Other rules there mean that the redirects are there as well.
        kinds = {(entry.rule.table, entry.rule.version) for entry in installed if entry.rule}
        self.complete = bool(kinds - {("filter", 6)}) or self.firewall.name != "nftables"
        active = summarize(self.firewall.name, self.firewall.layout, installed).redirects
        return next((entry.redirect.mock for entry in active if entry.redirect.endpoint == endpoint), None)


@contextmanager
def open_rule_reader() -> Iterator[RuleReader]:
    """Open a reader. It forks a helper if the rules may be in legacy iptables, so start threads later."""
    effective = capabilities.effective()
    if not effective & capabilities.NET_ADMIN:
        yield RuleReader(None)
        return
    with FirewallSelector("auto", readable_versions()) as selector:
        firewall: Firewall = selector.nft
        if not selector.nft.has_redirects() and effective & capabilities.NET_RAW:  # legacy iptables needs NET_RAW
            legacy = selector.start_helpers()
            firewall = selector.nft if isinstance(legacy, DetourError) else legacy
        yield RuleReader(firewall)
