"""What the way through needs of a firewall. For type checkers alone: at run time nobody imports it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from imds_detour.firewall.rules import Installed, Layout, Rule


class Firewall(Protocol):
    """What the way through needs of a firewall.

    Every method raises DetourError, with step ``firewall`` when the kernel or a library refuses, and with step ``lock``
    when somebody else keeps writing.
    """

    name: str
    """How messages call it."""
    layout: Layout
    """Where it keeps our rules."""

    def apply(self, table: str, rules: tuple[Rule, ...], timeout: float) -> tuple[Rule, ...]:
        """Make these the rules of ours in a table, all or nothing, read them back, and return those that stood before.

        Without rules, nothing of ours stays in the table. Other people's rules stay as they are. ``timeout`` is for
        how many seconds to wait while somebody else writes.
        """

    def installed(self, table: str | None = None) -> tuple[Installed, ...]:
        """Return the rules of ours as the kernel holds them, in one table or in both."""

    def close(self) -> None:
        """End the firewall's helper process, if any; the rules stay."""
