"""nftables over netlink: a table of our own, changed by transactions, with NET_ADMIN alone.

Of the three ways to speak nftables, libnftables (through its Python binding) and ``nft -f -`` both need something that
the app's image does not have, and cost a library load or a fork. nfnetlink needs the standard library alone: a batch of
some ten messages, and the errors come back as errno.
"""

from __future__ import annotations

import errno
import os
import struct
from contextlib import suppress

from imds_detour.errors import DetourError
from imds_detour.firewall.lock import TablesLock
from imds_detour.firewall.nftables.codec import NFPROTO, decode, encode
from imds_detour.firewall.refusals import no_net_admin
from imds_detour.firewall.rules import NFT, NFT_PRIORITIES, NFT_TABLE
from imds_detour.system.netlink import (
    NLM_F_ACK,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_DUMP,
    Message,
    attribute,
    attributes,
    nested,
    talk,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from imds_detour.firewall.rules import Installed, Rule

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
"""What to do about a kernel without nftables, or without a part that our rules need."""

TABLES = {NFT.guard: "filter", NFT.redirect: "nat"}
"""The table of legacy iptables that each chain stands for; the order is that in which they are made and listed."""
MODULES = {
    "filter": ("reject", "nft_reject_ipv4 nft_reject_ipv6"),
    "nat": ("nat", "nft_chain_nat nft_nat"),
}
"""What the rules of each need beside nf_tables itself, and the modules that bring it."""


class NftFirewall:
    """The nftables of this network namespace."""

    name = "nftables"
    layout = NFT

    def require(self) -> None:
        """Return when it can be used here; nothing is changed for that.

        Raises:
            DetourError: when it cannot, naming the capability or the kernel feature.

        """
        try:
            talk(NETLINK_NETFILTER, [_message(GETGEN, 0, NLM_F_ACK)])
        except OSError as error:
            raise _translated(error, "cannot be used here") from None

    def stands(self) -> bool:
        """Whether rules of ours stand; none where they cannot be looked at."""
        try:
            return bool(self.installed())
        except DetourError:
            return False

    def apply(self, table: str, rules: tuple[Rule, ...], timeout: float) -> tuple[Rule, ...]:
        """Make these the rules of ours in a table by one transaction, read them back, and return those before."""
        with TablesLock(timeout):
            installed = self.installed()
            ours = tuple(found.rule for found in installed)
            before = tuple(rule for rule in ours if rule is not None and rule.table == table)
            others = tuple(rule for rule in ours if rule is not None and rule.table != table)
            if before != rules or None in ours:
                try:
                    self._write((*others, *rules), others, anew=None in ours)
                except DetourError:
                    with suppress(DetourError):  # the answer may have been lost, and not the transaction
                        self._replace((*others, *before), (), anew=True)
                    raise
        return before

    def installed(self, table: str | None = None) -> tuple[Installed, ...]:
        """Return the rules of ours as the kernel holds them, in one table or in both."""
        found = []
        for family in NFPROTO.values():
            question = _message(GETRULE, family, NLM_F_DUMP, attribute(RULE_TABLE, TABLE_ATTRIBUTE))
            try:
                found += [decode(body[4:], TABLES) for body in talk(NETLINK_NETFILTER, [question])]
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise _translated(error, "cannot be read") from None
        return tuple(each for each in found if table is None or each.rule is None or each.rule.table == table)

    def _write(self, rules: tuple[Rule, ...], standing: tuple[Rule, ...], *, anew: bool) -> None:
        """Make these the rules of our tables, and read them back."""
        self._replace(rules, standing, anew=anew)
        if _ordered(found.rule for found in self.installed()) != _ordered(rules):
            raise DetourError("firewall", "the nftables rules read back are not the ones written")

    def close(self) -> None:
        """Do nothing: there is no helper process."""

    def _replace(self, rules: tuple[Rule, ...], standing: tuple[Rule, ...], *, anew: bool) -> None:
        """Make these the rules of our tables, in one transaction; chains whose rules are ``standing`` already may stay.

        The chains stay where they are, and only their rules change: a packet that is on its way through a chain that is
        taken away would find it empty. Only tables that somebody else wrote to are made ``anew``. What is not there is
        not taken away, nor what is there already: whatever goes costs a grace period of RCU, 10 to 35 ms.
        """
        messages = []
        for version, family in NFPROTO.items():
            wanted = [rule for rule in rules if rule.version == version]
            chains = _chains(family)
            if chains is not None and (anew or not wanted):
                # What is made first can be taken away in any case, should somebody else have done so meanwhile.
                messages += [_table(NEWTABLE, family), _table(DELTABLE, family)]
                chains = None
            if not wanted:
                continue
            messages.append(_table(NEWTABLE, family))
            for chain in TABLES:
                ours = [rule for rule in wanted if rule.chain == chain]
                there = chain in (chains or ())
                if there and ours and ours == [rule for rule in standing if rule.chain == chain and rule in wanted]:
                    continue
                if ours or there:
                    messages += [_chain(family, chain), _chain_rules(DELRULE, 0, family, chain)]
                    messages += [_rule(family, rule) for rule in ours]
                if there and not ours:
                    messages.append(_message(DELCHAIN, family, 0, *_chain_name(chain)))
        if not messages:
            return
        begin = Message(BATCH_BEGIN, 0, struct.pack("!BBH", 0, 0, SUBSYSTEM))
        end = Message(BATCH_END, 0, begin.body)
        try:
            acknowledged = (Message(message.kind, message.flags | NLM_F_ACK, message.body) for message in messages)
            talk(NETLINK_NETFILTER, [begin, *acknowledged, end])
        except OSError as error:
            if error.errno == errno.ENOENT:
                raise _lacking({rule.table for rule in rules if rule not in standing}) from None
            raise _translated(error, "refuses our rules") from None


def _chains(family: int) -> frozenset[str] | None:
    """Return the names of the chains in our table; None where there is no such table.

    Raises:
        DetourError: when the kernel does not let us see.

    """
    try:
        talk(NETLINK_NETFILTER, [_message(GETTABLE, family, NLM_F_ACK, attribute(TABLE_NAME, TABLE_ATTRIBUTE))])
        chains = [attributes(body[4:]) for body in talk(NETLINK_NETFILTER, [_message(GETCHAIN, family, NLM_F_DUMP)])]
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP):  # the latter: a kernel without IPv6
            return None
        raise _translated(error, "cannot be read") from None
    ours = (chain for chain in chains if chain.get(CHAIN_TABLE) == TABLE_ATTRIBUTE)
    return frozenset(chain[CHAIN_NAME].rstrip(b"\0").decode(errors="replace") for chain in ours)


def _ordered(rules: Iterable[Rule | None]) -> list[Rule | None]:
    """Sort by chain and IP version, as the kernel lists them; within a chain the order counts, and stays."""
    return sorted(rules, key=lambda rule: (rule.version, rule.chain) if rule else (0, ""))


def _message(kind: int, family: int, flags: int, *parts: bytes) -> Message:
    header = struct.pack("!BBH", family, 0, 0)  # struct nfgenmsg
    return Message(SUBSYSTEM << 8 | kind, flags, header + b"".join(parts))


def _table(kind: int, family: int) -> Message:
    return _message(kind, family, NLM_F_CREATE if kind == NEWTABLE else 0, attribute(TABLE_NAME, TABLE_ATTRIBUTE))


def _chain_name(chain: str) -> tuple[bytes, bytes]:
    return attribute(CHAIN_TABLE, TABLE_ATTRIBUTE), attribute(CHAIN_NAME, chain.encode() + b"\0")


def _chain(family: int, chain: str) -> Message:
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


def _chain_rules(kind: int, flags: int, family: int, chain: str, *rule: bytes) -> Message:
    """Return a message about a rule of a chain, or about all of them where none is given."""
    where = attribute(RULE_TABLE, TABLE_ATTRIBUTE) + attribute(RULE_CHAIN, chain.encode() + b"\0")
    return _message(kind, family, flags, where, *rule)


def _rule(family: int, rule: Rule) -> Message:
    return _chain_rules(NEWRULE, NLM_F_CREATE | NLM_F_APPEND, family, rule.chain, encode(rule))


def _lacking(tables: set[str]) -> DetourError:
    """Return what to say where nf_tables is there, and knows no such chain or expression."""
    what, modules = MODULES["nat" if "nat" in tables else "filter"]
    reason = f"nftables refuses our rules: the kernel has no {what} for it ({os.strerror(errno.ENOENT)})"
    return DetourError("firewall", reason, f"load it on the host: `modprobe -a {modules}`")


def _translated(error: OSError, what: str) -> DetourError:
    if error.errno == errno.EPERM:
        return no_net_admin(os.geteuid())
    if error.errno in (errno.EPROTONOSUPPORT, errno.EINVAL, errno.EOPNOTSUPP):
        return DetourError("firewall", f"nftables {what}: the kernel has none ({error.strerror})", LOAD)
    return DetourError("firewall", f"nftables {what}: {error.strerror or error}")
