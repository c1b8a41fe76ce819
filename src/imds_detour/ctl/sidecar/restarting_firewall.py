"""A firewall for a lifetime: one whose helper is lost gets a new one, and no stop breaks in on what is written.

The helper of legacy iptables may run out of memory, or be killed for it, months after the start. Without one the rules
stand, and nobody can read or change them; with a new one all is as before. It is forked beside the thread that answers
HTTP, which is harmless: that thread holds the interpreter's lock, or waits in a system call and holds none of libc's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from imds_detour.firewall import select
from imds_detour.firewall.iptables.helper import HelperLostError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from imds_detour.ctl.sidecar.signals import Wake
    from imds_detour.firewall.base import Firewall
    from imds_detour.firewall.rules import Installed, Rule
    from imds_detour.log import Log

    Outcome = TypeVar("Outcome")


class LastingFirewall:
    """Does what the firewall does that it was given, for as long as it takes."""

    def __init__(self, first: Firewall, versions: tuple[int, ...], wake: Wake, log: Log) -> None:
        """Take a firewall that was started for these IP versions; from here on it is ours to close."""
        self.name, self.reason, self.layout = first.name, first.reason, first.layout
        self._firewall = first
        self._versions = versions
        self._wake = wake
        self._log = log
        self._said = ""

    def apply(self, table: str, rules: tuple[Rule, ...], timeout: float) -> tuple[Rule, ...]:
        """Make these the rules of ours in a table, and return those that stood before."""
        return self._ask(lambda firewall: firewall.apply(table, rules, timeout))

    def installed(self, table: str | None = None) -> tuple[Installed, ...]:
        """Return the rules of ours as the kernel holds them, in one table or in both."""
        return self._ask(lambda firewall: firewall.installed(table))

    def close(self) -> None:
        """End the helper, if any; the rules stay."""
        self._firewall.close()

    def start_anew(self, versions: tuple[int, ...]) -> None:
        """Let another one of its kind, for these IP versions, take its place; the rules stay.

        Raises:
            DetourError: when it cannot be started; the old one goes on.

        """
        choice = "nft" if self.name == "nftables" else "legacy"  # the rules stand there, whatever `auto` would say now
        fresh = select.start(choice, versions)
        self._firewall.close()
        self._firewall, self._versions = fresh, versions

    def _ask(self, question: Callable[[Firewall], Outcome]) -> Outcome:
        with self._wake.whole():
            try:
                return question(self._firewall)
            except HelperLostError as error:
                if error.reason != self._said:  # once, though it may take many attempts to start one
                    self._log.warning(f"{error.reason}; another one is started")
                    self._said = error.reason
            self.start_anew(self._versions)
            self._said = ""
            return question(self._firewall)
