"""Legacy iptables through python-iptables: the parent's side, which asks a child that holds the library."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imds_detour.backends.child import Child

if TYPE_CHECKING:
    from collections.abc import Callable

    from imds_detour.rules import Installed, Rule


class LegacyFirewall:
    """The ip_tables of this network namespace."""

    name = "legacy iptables"

    def __init__(self) -> None:
        self._child = Child(_load)

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
