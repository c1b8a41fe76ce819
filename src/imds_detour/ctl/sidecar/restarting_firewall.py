"""A firewall that replaces a lost helper, and whose calls no stop interrupts.

The helper of legacy iptables may be killed for its memory months after the start. The rules remain, but cannot be read
or changed until a new helper runs. It is forked while the HTTP thread exists, which is harmless: that thread holds the
interpreter's lock, or waits in a system call without a lock of libc.
"""

from collections.abc import Callable
from typing import TypeVar

from imds_detour.ctl.sidecar.signals import Signals
from imds_detour.errors import DetourError
from imds_detour.firewall.base import Firewall
from imds_detour.firewall.change import Change
from imds_detour.firewall.iptables.helper import HelperLostError
from imds_detour.firewall.nftables.backend import NftFirewall
from imds_detour.firewall.rules import Installed, Rule
from imds_detour.firewall.select import FirewallSelector
from imds_detour.log import Log
from imds_detour.system import namespaces

Outcome = TypeVar("Outcome")


def choose_firewall(choice: str, versions: tuple[int, ...]) -> Firewall:
    """Return nftables rather than legacy iptables, unless the user chose: it has no helper process to keep.

    The caller closes it. Raises DetourError if no firewall can be used.
    """
    selector = FirewallSelector(choice, versions)
    try:
        firewall, _ = selector.choose(nft_first=True)
    except BaseException:
        selector.close()
        raise
    selector.close(keep=firewall)
    return firewall


def guard_parts(firewall: Firewall, log: Log) -> list[tuple[Firewall, tuple[int, ...]]]:
    """Return the firewalls to guard with, and the IP versions of each: nftables for those without a helper."""
    parts: list[tuple[Firewall, tuple[int, ...]]] = [(firewall, firewall.versions)]
    if rest := tuple(version for version in namespaces.kernel_versions() if version not in firewall.versions):
        try:
            (nft := NftFirewall()).require()
            parts.append((nft, rest))
        except DetourError as error:  # it is guarded when the namespace gets it
            log.warning(f"IPv6 is not guarded, should this network namespace get it: {error.reason}")
    return parts


class RestartingFirewall:
    """Passes calls on to a firewall, and restarts it when its helper is lost."""

    def __init__(self, firewall: Firewall, signals: Signals, log: Log) -> None:
        """Take a firewall; close() closes it."""
        self.name, self.layout = firewall.name, firewall.layout
        self._firewall = firewall
        self._signals, self._log = signals, log
        self._warned = ""

    @property
    def versions(self) -> tuple[int, ...]:
        """The IP versions whose rules it can hold."""
        return self._firewall.versions

    def apply(self, change: Change, timeout: float) -> tuple[Rule, ...]:
        """Change imds-detour's rules in a table, and return those before."""
        return self._call(lambda firewall: firewall.apply(change, timeout))

    def installed(self, table: str | None = None) -> tuple[Installed, ...]:
        """Return imds-detour's rules as the kernel holds them, in one table or in both."""
        return self._call(lambda firewall: firewall.installed(table))

    def generation(self) -> int | None:
        """Return a number that each transaction of nftables raises; None for legacy iptables, which has none."""
        return self._call(lambda firewall: firewall.generation() if isinstance(firewall, NftFirewall) else None)

    def close(self) -> None:
        """End the helper, if any; the rules remain."""
        self._firewall.close()

    def restart(self, versions: tuple[int, ...]) -> None:
        """Replace the firewall by one of its kind for these IP versions; the rules remain."""
        # The rules are in this firewall, whatever `auto` would choose now.
        fresh = choose_firewall("nft" if self.name == "nftables" else "legacy", versions)
        self._firewall.close()
        self._firewall = fresh

    def _call(self, function: Callable[[Firewall], Outcome]) -> Outcome:
        with self._signals.uninterruptible():
            try:
                return function(self._firewall)
            except HelperLostError as error:
                if error.reason != self._warned:  # once, even if many attempts to start another fail
                    self._log.warning(f"{error.reason}; another one is started")
                    self._warned = error.reason
            self.restart(self.versions)
            self._warned = ""
            return function(self._firewall)
