"""Legacy iptables through python-iptables: the parent's side, which asks a child that holds the library."""

from __future__ import annotations

from imds_detour.errors import DetourError
from imds_detour.firewall.rules import LEGACY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from imds_detour.firewall.iptables.helper import Child
    from imds_detour.firewall.rules import Installed, Rule


class LegacyFirewall:
    """The ip_tables, and with IPv6 the ip6_tables, of this network namespace."""

    name = "legacy iptables"
    layout = LEGACY

    def __init__(self, children: Mapping[int, Child], left: Callable[[], float] | None = None) -> None:
        """Take the helpers (helpers.py), by IP version; from here on they are ours to end.

        ``left`` says how many seconds are left before the deadline of the whole start.
        """
        self._children = children
        if left is not None:
            for child in children.values():
                child.left = left

    def require(self) -> None:
        """Return when it can be used here; nothing is changed for that.

        Raises:
            DetourError: when it cannot, naming the capability, kernel feature or library.

        """
        for child in self._children.values():
            child.call("ready")

    def apply(self, table: str, rules: tuple[Rule, ...], timeout: float) -> tuple[Rule, ...]:
        """Make these the rules of ours in a table, one commit an IP version, and return those that stood before."""
        beyond = {rule.version for rule in rules} - set(self._children)
        if beyond:
            raise DetourError("firewall", f"no IPv{beyond.pop()} in this network namespace")
        before: dict[int, tuple[Rule, ...]] = {}
        try:
            for version, child in self._children.items():
                ours = tuple(rule for rule in rules if rule.version == version)
                before[version] = child.call("apply", table, ours, timeout)
        except DetourError:
            # Each version has a commit of its own: none stands without the others.
            for version, stood in before.items():
                self._children[version].call("apply", table, stood, timeout)
            raise
        return tuple(rule for stood in before.values() for rule in stood)

    def installed(self, table: str | None = None) -> tuple[Installed, ...]:
        """Return the rules of ours as the kernel holds them, in one table or in both."""
        return tuple(found for child in self._children.values() for found in child.call("installed", table))

    def close(self) -> None:
        """End the children; the rules stay."""
        for child in self._children.values():
            child.close()
