"""The protocol of a firewall. Only type checkers import it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from imds_detour.firewall.rules import Installed, Layout, Rule


class Firewall(Protocol):
    """A firewall that holds rules.

    Every method raises DetourError: with step ``firewall`` when the kernel or a library refuses, and with step ``lock``
    when another program keeps writing.
    """

    name: str
    """Its name in messages."""
    layout: Layout
    """Where it keeps the rules."""

    def apply(self, table: str, rules: tuple[Rule, ...], timeout: float) -> tuple[Rule, ...]:
        """Make these imds-detour's rules in a table, all or nothing, read them back, and return those before.

        Without rules, all are removed. Foreign rules stay as they are. ``timeout`` is how many seconds to wait for
        another writer.
        """

    def installed(self, table: str | None = None) -> tuple[Installed, ...]:
        """Return imds-detour's rules as the kernel holds them, in one table or in both."""

    def close(self) -> None:
        """End the helper process, if any; the rules remain."""
