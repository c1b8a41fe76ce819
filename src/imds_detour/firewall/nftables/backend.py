"""nftables over netlink: a table of imds-detour, changed by transactions. It needs NET_ADMIN only.

The app's image need not have libnftables or the command nft.
"""

from __future__ import annotations

import errno
import os
import struct

from imds_detour.errors import DetourError, NotInKernelError
from imds_detour.firewall.lock import TablesLock
from imds_detour.firewall.rules import NFT, NFT_PRIORITIES, NFT_TABLE
from imds_detour.system.capabilities import no_net_admin
from imds_detour.system.netlink import (
    NFPROTO,
    NLM_F_ACK,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_DUMP,
    Message,
    attribute,
    attributes,
    nested,
    open_netlink,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from imds_detour.firewall.rules import Installed, Rule
    from imds_detour.system.netlink import Kernel

TABLE_ATTRIBUTE = NFT_TABLE.encode() + b"\0"

NETLINK_NETFILTER = 12  # linux/netlink.h
SUBSYSTEM, BATCH_BEGIN, BATCH_END = 10, 16, 17  # linux/netfilter/nfnetlink.h: NFNL_SUBSYS_NFTABLES, NFNL_MSG_BATCH_*
# linux/netfilter/nf_tables.h
NEWTABLE, GETTABLE, DELTABLE, NEWCHAIN, GETCHAIN, DELCHAIN, NEWRULE, GETRULE, DELRULE, GETGEN = *range(9), 16
TABLE_NAME, RULE_TABLE, RULE_CHAIN = 1, 1, 2
CHAIN_TABLE, CHAIN_NAME, CHAIN_HOOK, CHAIN_POLICY, CHAIN_TYPE = 1, 3, 4, 5, 7
HOOK_NUM, HOOK_PRIORITY = 1, 2
LOCAL_OUT, ACCEPT = 3, 1  # linux/netfilter.h: NF_INET_LOCAL_OUT, NF_ACCEPT

LOAD = "load them on the host: `modprobe -a nf_tables nft_chain_nat nft_nat nft_reject_ipv4 nft_reject_ipv6`"
"""The remedy for a kernel without nftables."""
TABLES = {NFT.guard: "filter", NFT.redirect: "nat"}
"""The chains in the order in which the kernel lists them, and the value of Rule.table for their rules."""
MODULES = {"filter": ("reject", "nft_reject_ipv4 nft_reject_ipv6"), "nat": ("nat", "nft_chain_nat nft_nat")}
"""By Rule.table: the feature that the rules need in addition to nf_tables, and its modules."""


class NftFirewall:
    """The nftables of this network namespace."""

    name = "nftables"
    layout = NFT

    def require(self) -> None:
        """Raise DetourError if nftables cannot be used. This changes no rules."""
        try:
            with open_netlink(NETLINK_NETFILTER) as kernel:
                kernel.talk([_message(GETGEN, 0, NLM_F_ACK)])
        except OSError as error:
            raise _translated(error, "cannot be used here") from None

    def has_rules(self) -> bool:
        """Return whether rules of imds-detour are installed, False if they cannot be read."""
        try:
            return bool(self.installed())
        except DetourError:
            return False

    def apply(self, table: str, rules: tuple[Rule, ...], timeout: float) -> tuple[Rule, ...]:
        """Replace imds-detour's rules in a table by a transaction, and return the previous ones."""
        with TablesLock(timeout):
            installed = [entry.rule for entry in self.installed()]
            previous = tuple(rule for rule in installed if rule is not None and rule.table == table)
            others = tuple(rule for rule in installed if rule is not None and rule.table != table)
            if previous != rules or None in installed:
                try:
                    self._write((*others, *rules), others, recreate=None in installed)
                except DetourError as error:
                    self._roll_back((*others, *previous), error)
                    raise
        return previous

    def installed(self, table: str | None = None) -> tuple[Installed, ...]:
        """Read imds-detour's rules from the kernel, in one table or in both."""
        try:
            with open_netlink(NETLINK_NETFILTER) as kernel:
                bodies = [body for family in NFPROTO.values() for body in _dump(kernel, family)]
        except OSError as error:
            raise _translated(error, "cannot be read") from None
        if not bodies:
            return ()
        from imds_detour.firewall.nftables.codec import decode  # noqa: PLC0415  (legacy iptables does without)

        entries = [decode(body[4:], TABLES) for body in bodies]
        return tuple(entry for entry in entries if table is None or entry.rule is None or entry.rule.table == table)

    def close(self) -> None:
        """Do nothing. There is no helper process."""

    def _write(self, rules: tuple[Rule, ...], kept: tuple[Rule, ...], *, recreate: bool) -> None:
        """Replace the rules of imds-detour's tables, and read them back."""
        self._replace(rules, kept, recreate=recreate)
        if _ordered(entry.rule for entry in self.installed()) != _ordered(rules):
            raise DetourError("firewall", "the nftables rules read back are not the ones written")

    def _replace(self, rules: tuple[Rule, ...], kept: tuple[Rule, ...], *, recreate: bool) -> None:
        """Replace the rules of imds-detour's tables by a transaction. A chain whose rules are all in ``kept`` may stay.

        A packet inside a deleted chain would see an empty one, so chains stay and their rules change. Only tables
        with foreign rules are recreated. Each deletion waits for a grace period of RCU.
        """
        try:
            with open_netlink(NETLINK_NETFILTER) as kernel:
                messages = _changes(kernel, rules, kept, recreate=recreate)
                if messages:
                    begin = Message(BATCH_BEGIN, 0, struct.pack("!BBH", 0, 0, SUBSYSTEM))
                    kernel.talk([begin, *messages, Message(BATCH_END, 0, begin.body)])
        except OSError as error:
            if error.errno == errno.ENOENT:
                raise _missing_feature({rule.table for rule in rules if rule not in kept}) from None
            raise _translated(error, "refuses imds-detour's rules") from None

    def _roll_back(self, rules: tuple[Rule, ...], error: DetourError) -> None:
        """Install the previous rules. The reason of a failure is added to the error's reason."""
        try:
            self._replace(rules, (), recreate=True)  # a refusal may hide a commit whose answer was lost
        except DetourError as second:
            if second.reason != error.reason:
                error.reason += f"; the change could not be undone: {second.reason}"


def _dump(kernel: Kernel, family: int) -> list[bytes]:
    """Return the messages for the rules of imds-detour's table, none if there is no such table."""
    try:
        return kernel.talk([_message(GETRULE, family, NLM_F_DUMP, attribute(RULE_TABLE, TABLE_ATTRIBUTE))])
    except OSError as error:
        if error.errno == errno.ENOENT:
            return []
        raise


def _changes(kernel: Kernel, rules: tuple[Rule, ...], kept: tuple[Rule, ...], *, recreate: bool) -> list[Message]:
    """Return the messages of a transaction for NftFirewall._replace(), none if nothing is to change."""
    messages = []
    for version, family in NFPROTO.items():
        wanted = [rule for rule in rules if rule.version == version]
        existing = _existing_chains(kernel, family)
        if existing is not None and (recreate or not wanted):
            # With the table created first, the deletion works even if another program has deleted it meanwhile.
            messages += [_table_message(NEWTABLE, family), _table_message(DELTABLE, family)]
            existing = None
        if wanted:
            messages.append(_table_message(NEWTABLE, family))
            messages += _chain_messages(family, wanted, kept, existing or frozenset())
    return [Message(message.kind, message.flags | NLM_F_ACK, message.body) for message in messages]


def _chain_messages(family: int, wanted: list[Rule], kept: tuple[Rule, ...], existing: frozenset[str]) -> list[Message]:
    """Return the messages that give the chains of a table the wanted rules."""
    from imds_detour.firewall.nftables.codec import encode  # noqa: PLC0415  (as above)

    messages = []
    for chain in TABLES:
        rules = [rule for rule in wanted if rule.chain == chain]
        if chain in existing and rules and rules == [rule for rule in kept if rule.chain == chain and rule in wanted]:
            continue
        if rules or chain in existing:
            messages += [_chain_message(family, chain), _rule_message(DELRULE, 0, family, chain)]
            messages += [
                _rule_message(NEWRULE, NLM_F_CREATE | NLM_F_APPEND, family, chain, encode(rule)) for rule in rules
            ]
        if chain in existing and not rules:
            messages.append(_message(DELCHAIN, family, 0, *_chain_name(chain)))
    return messages


def _existing_chains(kernel: Kernel, family: int) -> frozenset[str] | None:
    """Return the names of the chains in imds-detour's table, None if there is no such table."""
    try:
        kernel.talk([_message(GETTABLE, family, NLM_F_ACK, attribute(TABLE_NAME, TABLE_ATTRIBUTE))])
        chains = [attributes(body[4:]) for body in kernel.talk([_message(GETCHAIN, family, NLM_F_DUMP)])]
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP):  # the last: no IPv6
            return None
        raise _translated(error, "cannot be read") from None
    return frozenset(
        chain[CHAIN_NAME].rstrip(b"\0").decode(errors="replace")
        for chain in chains
        if chain.get(CHAIN_TABLE) == TABLE_ATTRIBUTE
    )


def _ordered(rules: Iterable[Rule | None]) -> list[Rule | None]:
    """Sort by IP version and chain, as the kernel lists them. The order within a chain does not change."""
    return sorted(rules, key=lambda rule: (rule.version, rule.chain) if rule else (0, ""))


def _message(kind: int, family: int, flags: int, *parts: bytes) -> Message:
    header = struct.pack("!BBH", family, 0, 0)  # struct nfgenmsg
    return Message(SUBSYSTEM << 8 | kind, flags, header + b"".join(parts))


def _table_message(kind: int, family: int) -> Message:
    return _message(kind, family, NLM_F_CREATE if kind == NEWTABLE else 0, attribute(TABLE_NAME, TABLE_ATTRIBUTE))


def _chain_name(chain: str) -> tuple[bytes, bytes]:
    return attribute(CHAIN_TABLE, TABLE_ATTRIBUTE), attribute(CHAIN_NAME, chain.encode() + b"\0")


def _chain_message(family: int, chain: str) -> Message:
    table = TABLES[chain]
    priority = attribute(HOOK_PRIORITY, struct.pack("!i", NFT_PRIORITIES[table]))
    return _message(
        NEWCHAIN,
        family,
        NLM_F_CREATE,
        *_chain_name(chain),
        nested(CHAIN_HOOK, attribute(HOOK_NUM, struct.pack("!I", LOCAL_OUT)), priority),
        attribute(CHAIN_POLICY, struct.pack("!I", ACCEPT)),
        attribute(CHAIN_TYPE, table.encode() + b"\0"),
    )


def _rule_message(kind: int, flags: int, family: int, chain: str, *rule: bytes) -> Message:
    """Return a message about a rule of a chain, or about all its rules."""
    table = attribute(RULE_TABLE, TABLE_ATTRIBUTE)
    return _message(kind, family, flags, table, attribute(RULE_CHAIN, chain.encode() + b"\0"), *rule)


def _missing_feature(tables: set[str]) -> DetourError:
    """Return the error for a kernel that has nf_tables without such a chain or expression."""
    feature, modules = MODULES["nat" if "nat" in tables else "filter"]
    reason = f"nftables refuses imds-detour's rules: the kernel has no {feature} for it ({os.strerror(errno.ENOENT)})"
    return DetourError("firewall", reason, f"load it on the host: `modprobe -a {modules}`")


def _translated(error: OSError, problem: str) -> DetourError:
    if error.errno == errno.EPERM:
        return no_net_admin(os.geteuid())
    if error.errno in (errno.EPROTONOSUPPORT, errno.EINVAL, errno.EOPNOTSUPP):
        return NotInKernelError("firewall", f"nftables {problem}: the kernel has none ({error.strerror})", LOAD)
    return DetourError("firewall", f"nftables {problem}: {error.strerror or error}")
