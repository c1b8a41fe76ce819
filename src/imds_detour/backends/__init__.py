"""Firewall backends: each one module, imported when chosen, able to say why it cannot work here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from imds_detour.rules import Installed, Rule


class Firewall(Protocol):
    """What the way through needs of a firewall.

    Every method raises DetourError with step ``firewall`` when the kernel or a library refuses.
    """

    name: str
    """How messages call it."""

    def apply(self, rules: tuple[Rule, ...], tables: tuple[str, ...]) -> None:
        """Make these the rules of ours in the tables named: all or nothing in each, in that order, and read back.

        Without rules for a table, nothing of ours stays in it. Other people's rules stay as they are.
        """

    def installed(self) -> tuple[Installed, ...]:
        """Return the rules of ours as the kernel holds them."""

    def close(self) -> None:
        """End the firewall's helper process, if any; the rules stay."""


def start() -> Firewall:
    """Return the firewall for this namespace, its loading under way in the background.

    Call it before the first thread is started: it forks.
    """
    from imds_detour.backends.legacy import LegacyFirewall  # noqa: PLC0415  (a backend is imported when chosen)

    return LegacyFirewall()
