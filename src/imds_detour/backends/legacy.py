"""Legacy iptables through python-iptables: the parent's side, which asks a child that holds the library."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imds_detour.backends.child import Child
from imds_detour.rules import LEGACY

if TYPE_CHECKING:
    from collections.abc import Callable

    from imds_detour.rules import Installed, Rule


class LegacyFirewall:
    """The ip_tables of this network namespace."""

    name = "legacy iptables"
    because = "it works here"
    layout = LEGACY

    def __init__(self) -> None:
        """Set out to load python-iptables, in a child."""
        self._child = Child(_load)

    def require(self) -> None:
        """Return when it can be used here; nothing is changed for that.

        Raises:
            DetourError: when it cannot, naming the capability, kernel feature or library.

        """
        self._child.call("ready")

    def apply(self, table: str, rules: tuple[Rule, ...], patience: float) -> tuple[Rule, ...]:
        """Make these the rules of ours in a table by one commit, read them back, and return those that stood before."""
        before: tuple[Rule, ...] = self._child.call("apply", table, rules, patience)
        return before

    def installed(self) -> tuple[Installed, ...]:
        """Return the rules of ours as the kernel holds them."""
        installed: tuple[Installed, ...] = self._child.call("installed")
        return installed

    def close(self) -> None:
        """End the child; the rules stay."""
        self._child.close()


def _load() -> dict[str, Callable[..., object]]:
    from imds_detour.backends import legacy_child  # noqa: PLC0415  (it imports ctypes; only the child needs it)

    return legacy_child.load()
