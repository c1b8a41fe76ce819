"""The protocol of a firewall, for type checkers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from imds_detour.firewall.change import Change
    from imds_detour.firewall.rules import Installed, Layout, Rule


class Firewall(Protocol):
    """A firewall of this network namespace.

    Methods raise DetourError: with step ``firewall`` when the kernel or a library refuses, with step ``lock`` when
    another program does not stop writing.
    """

    name: str
    """The name in messages."""
    layout: Layout
    """The chains that it uses."""

    @property
    def versions(self) -> tuple[int, ...]:
        """The IP versions whose rules it can hold."""

    def apply(self, change: Change, timeout: float) -> tuple[Rule, ...]:
        """Change imds-detour's rules in a table, read them back, and return the previous ones.

        Rules that have no effect are installed again: those of a dormant table, or after a foreign rule. Either all
        change or none, and foreign rules do not change. ``timeout`` is the time to wait for another writer, in seconds.
        """

    def installed(self, table: str | None = None) -> tuple[Installed, ...]:
        """Read imds-detour's rules from the kernel, in one table or in both."""

    def close(self) -> None:
        """End the helper processes, if any. The rules stay."""
