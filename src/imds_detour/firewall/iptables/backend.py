"""Legacy iptables through python-iptables: the side of the process that asks the helpers."""

from __future__ import annotations

from imds_detour.errors import DetourError
from imds_detour.firewall.rules import LEGACY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from imds_detour.firewall.iptables.helper import Helper
    from imds_detour.firewall.rules import Installed, Rule


class LegacyFirewall:
    """The ip_tables, and with IPv6 the ip6_tables, of this network namespace."""

    name = "legacy iptables"
    layout = LEGACY

    def __init__(self, helpers: Mapping[int, Helper], remaining: Callable[[], float]) -> None:
        """Take a helper for each IP version, and the seconds before the deadline of the whole start."""
        self._helpers = helpers
        for helper in helpers.values():
            helper.remaining = remaining

    def require(self) -> None:
        """Return if legacy iptables can be used. Nothing is changed."""
        for helper in self._helpers.values():
            helper.call("ready")

    def apply(self, table: str, rules: tuple[Rule, ...], timeout: float) -> tuple[Rule, ...]:
        """Make these our rules in a table, one commit an IP version, and return those before."""
        unsupported = {rule.version for rule in rules} - set(self._helpers)
        if unsupported:
            raise DetourError("firewall", f"no IPv{unsupported.pop()} in this network namespace")
        before: dict[int, tuple[Rule, ...]] = {}
        try:
            for version, helper in self._helpers.items():
                of_version = tuple(rule for rule in rules if rule.version == version)
                before[version] = helper.call("apply", table, of_version, timeout)
        except DetourError as error:
            self._roll_back(table, before, timeout, error)
            raise
        return tuple(rule for replaced in before.values() for rule in replaced)

    def installed(self, table: str | None = None) -> tuple[Installed, ...]:
        """Return our rules as the kernel holds them, in one table or in both."""
        return tuple(entry for helper in self._helpers.values() for entry in helper.call("installed", table))

    def close(self) -> None:
        """End the helpers; the rules remain."""
        for helper in self._helpers.values():
            helper.close()

    def _roll_back(
        self, table: str, before: Mapping[int, tuple[Rule, ...]], timeout: float, error: DetourError
    ) -> None:
        """Undo the commits of the other IP versions. A failure is added to the error's reason."""
        for version, replaced in before.items():
            try:
                self._helpers[version].call("apply", table, replaced, timeout)
            except DetourError as second:
                error.reason += f"; IPv{version} could not be rolled back: {second.reason}"
