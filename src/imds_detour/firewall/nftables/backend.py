"""nftables over netlink: a table of imds-detour, changed by transactions. It needs NET_ADMIN only.

The app's image need not have libnftables or the command nft.
"""

from __future__ import annotations

import errno
import os
from contextlib import nullcontext

from imds_detour.errors import DetourError, NotInKernelError
from imds_detour.firewall.lock import NFTABLES, namespace_lock
from imds_detour.firewall.nftables import messages
from imds_detour.firewall.nftables.codec import TABLES, decode
from imds_detour.firewall.nftables.messages import NETLINK_NETFILTER
from imds_detour.firewall.rules import NFT, NFT_TABLE, Installed, Rule
from imds_detour.system.capabilities import NET_ADMIN, effective
from imds_detour.system.netlink import NFPROTO, Kernel, Message, open_netlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from imds_detour.firewall.change import Change

LOAD = "load them on the host: `modprobe -a nf_tables nft_chain_nat nft_nat nft_reject_ipv4 nft_reject_ipv6`"
MODULES = {"filter": ("reject", "nft_reject_ipv4 nft_reject_ipv6"), "nat": ("nat", "nft_chain_nat nft_nat")}
"""By Rule.table: the feature that the rules need in addition to nf_tables, and its modules."""


class NftFirewall:
    """The nftables of this network namespace."""

    name = "nftables"
    layout = NFT
    versions: tuple[int, ...] = (4, 6)

    def __init__(self) -> None:
        self._known: tuple[int, list[Rule | None]] | None = None

    def require(self) -> None:
        """Raise DetourError if nftables cannot be used. This changes no rules."""
        self.generation("cannot be used here")

    def generation(self, problem: str = "cannot be read") -> int:
        """Return a number that each transaction raises, also another program's. ``problem`` is for a failure's text."""
        try:
            with open_netlink(NETLINK_NETFILTER) as kernel:
                return messages.generation_of(kernel.talk([messages.get_generation()]))
        except OSError as error:
            raise _translated(error, problem) from None

    def has_redirects(self) -> bool:
        """Return whether redirects of imds-detour are installed, False if they cannot be read."""
        try:
            return bool(self.installed("nat"))
        except DetourError:
            return False

    def apply(self, change: Change, timeout: float) -> tuple[Rule, ...]:
        """Change imds-detour's rules in a table by a transaction, and return the previous ones."""
        for lock in (nullcontext(), namespace_lock(NFTABLES, timeout)):  # mostly there is nothing to do
            with lock:
                installed = self._rules()
                previous = tuple(rule for rule in installed if rule is not None and rule.table == change.table)
                wanted = change.wanted(previous, self.layout)
                if _ordered(previous) == _ordered(wanted) and None not in installed:
                    break
                if isinstance(lock, nullcontext):
                    continue
                others = tuple(rule for rule in installed if rule is not None and rule.table != change.table)
                try:
                    self._write((*others, *wanted), others, recreate=None in installed)
                except DetourError as error:
                    try:  # a refusal may hide a commit whose answer was lost
                        self._replace((*others, *previous), (), recreate=True)
                    except DetourError as second:
                        if second.reason != error.reason:
                            error.reason += f"; the change could not be undone: {second.reason}"
                    raise
        return previous

    def _rules(self) -> list[Rule | None]:
        """Return the installed rules. They are read again only if the kernel's ruleset has another generation."""
        generation = self.generation()
        if self._known is None or self._known[0] != generation:
            self._known = generation, [entry.rule for entry in self.installed()]
        return self._known[1]

    def installed(self, table: str | None = None) -> tuple[Installed, ...]:
        """Read imds-detour's rules from the kernel, in one table or in both."""
        entries: list[Installed] = []
        try:
            with open_netlink(NETLINK_NETFILTER) as kernel:
                for version in NFPROTO:
                    entries += _read(kernel, version, table)
        except OSError as error:
            raise _translated(error, "cannot be read") from None
        return tuple(entries)

    def close(self) -> None:
        """Do nothing. There is no helper process."""

    def _write(self, rules: tuple[Rule, ...], kept: tuple[Rule, ...], *, recreate: bool) -> None:
        self._replace(rules, kept, recreate=recreate)
        if _ordered(self._rules()) != _ordered(rules):
            raise DetourError("firewall", "the nftables rules read back are not the ones written")

    def _replace(self, rules: tuple[Rule, ...], kept: tuple[Rule, ...], *, recreate: bool) -> None:
        """Replace the rules of imds-detour's tables by a transaction. A chain whose rules are all in ``kept`` may stay.

        A packet inside a deleted chain would see an empty one, so chains stay and their rules change. Only tables
        with foreign rules are recreated. Each deletion waits for a grace period of RCU.
        """
        try:
            with open_netlink(NETLINK_NETFILTER) as kernel:
                transaction: list[Message] = []
                for version, family in NFPROTO.items():
                    chains = _chains(kernel, family)
                    existing = None if chains is None else frozenset(chains)
                    of_version = [rule for rule in rules if rule.version == version]
                    transaction += messages.changes(family, of_version, kept, existing, recreate=recreate)
                if transaction:
                    kernel.talk(messages.batch(transaction))
        except OSError as error:
            if error.errno == errno.ENOENT:
                # The kernel has nf_tables without such a chain or expression.
                new = {rule.table for rule in rules if rule not in kept}
                feature, modules = MODULES["nat" if "nat" in new else "filter"]
                text = f"nftables refuses imds-detour's rules: the kernel has no {feature} for it ({error.strerror})"
                raise DetourError("firewall", text, f"load it on the host: `modprobe -a {modules}`") from None
            raise _translated(error, "refuses imds-detour's rules") from None


def _read(kernel: Kernel, version: int, table: str | None) -> list[Installed]:
    """Return the table's rules. They count as foreign if it is unreliable, or if their chain has no hook.

    Of an unreliable table, the rules of one of Rule.table cannot be told.
    """
    if (chains := _chains(kernel, NFPROTO[version])) is None:
        return []
    if table is not None and table not in map(TABLES.get, chains):
        return []
    bodies = kernel.talk([messages.get(messages.GETRULE, NFPROTO[version])])
    entries = [decode(body[4:], version) for body in bodies]
    reached = {chain for chain in TABLES if messages.has_hook(chain, chains)}
    return [
        entry if chain in reached else Installed(None, entry.packets)
        for chain, entry in entries
        if table in (None, TABLES.get(chain))
    ]


def _chains(kernel: Kernel, family: int) -> dict[str, Mapping[int, bytes]] | None:
    """Return the chains of imds-detour's table, none while it is unreliable; None if there is no such table."""
    try:
        if messages.is_unreliable(kernel.talk([messages.get(messages.GETTABLE, family)])):
            return {}
        return messages.own_chains(kernel.talk([messages.get(messages.GETCHAIN, family)]))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP):  # the last: no IPv6
            return None
        raise


def _ordered(rules: Iterable[Rule | None]) -> list[Rule | None]:
    """Sort by IP version and chain. The order within a chain does not change."""
    return sorted(rules, key=lambda rule: (rule.version, rule.chain) if rule else (0, ""))


def _translated(error: OSError, problem: str) -> DetourError:
    if error.errno == errno.EPERM and effective() & NET_ADMIN:
        # linux/netfilter/nf_tables.h: NFT_TABLE_F_OWNER, a table that only the process that made it can change.
        remedy = "`nft list tables` shows it with `flags owner`: stop that program"
        return DetourError("firewall", f"nftables {problem}: another program owns the table {NFT_TABLE}", remedy)
    if error.errno == errno.EPERM:
        from imds_detour.advice.access import no_net_admin  # noqa: PLC0415  (only a start that fails needs it)

        return no_net_admin(os.geteuid())
    if error.errno in (errno.EPROTONOSUPPORT, errno.EINVAL, errno.EOPNOTSUPP):
        return NotInKernelError("firewall", f"nftables {problem}: the kernel has none ({error.strerror})", LOAD)
    return DetourError("firewall", f"nftables {problem}: {error.strerror or error}")
