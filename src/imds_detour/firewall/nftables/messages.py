"""The netlink messages that read and change imds-detour's nftables table."""

from __future__ import annotations

import struct

from imds_detour.firewall.nftables.codec import encode
from imds_detour.firewall.rules import NFT, NFT_TABLE, nft_priority
from imds_detour.system import netlink
from imds_detour.system.netlink import Message, attribute, string

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from imds_detour.firewall.rules import Rule

NETLINK_NETFILTER = 12  # linux/netlink.h
SUBSYSTEM, BATCH_BEGIN, BATCH_END = 10, 16, 17  # linux/netfilter/nfnetlink.h: NFNL_SUBSYS_NFTABLES, NFNL_MSG_BATCH_*
# linux/netfilter/nf_tables.h
GEN_ID = 1
NEWTABLE, GETTABLE, DELTABLE, NEWCHAIN, GETCHAIN, DELCHAIN, NEWRULE, GETRULE, DELRULE, GETGEN = *range(9), 16
TABLE_NAME, TABLE_FLAGS, UNRELIABLE = 1, 2, 1 | 2  # the first one in chains and rules, too; the last: DORMANT | OWNER
RULE_CHAIN = 2
CHAIN_NAME, CHAIN_HOOK, CHAIN_POLICY, CHAIN_TYPE = 3, 4, 5, 7
HOOK_NUM, HOOK_PRIORITY = 1, 2
ACCEPT = 1  # linux/netfilter.h: NF_ACCEPT
HOOK_NUMBERS = {"prerouting": 0, "forward": 2, "output": 3, "postrouting": 4}
"""linux/netfilter.h: NF_INET_*."""

OF_TABLE = attribute(TABLE_NAME, string(NFT_TABLE))
HOOKS = {chain: at for at, chain in NFT.hooks.items()}
"""Table and hook of each base chain."""


def get_generation() -> Message:
    """Return a question that every kernel with nftables answers, and only with NET_ADMIN."""
    return _message(GETGEN, 0, netlink.NLM_F_ACK)


def generation_of(answers: Iterable[bytes]) -> int:
    """Return the number that every change of the ruleset raises."""
    return next(int.from_bytes(netlink.attributes(body[4:])[GEN_ID]) for body in answers)


def get(kind: int, family: int) -> Message:
    """Return the question for imds-detour's table (GETTABLE), its rules (GETRULE) or all chains (GETCHAIN)."""
    return _message(kind, family, netlink.NLM_F_ACK if kind == GETTABLE else netlink.NLM_F_DUMP, OF_TABLE)


def own_chains(answers: Iterable[bytes]) -> dict[str, Mapping[int, bytes]]:
    """Return the chains of imds-detour's table by name, from answers about all chains."""
    chains = (netlink.attributes(body[4:]) for body in answers)
    own = string(NFT_TABLE)
    return {netlink.text(chain[CHAIN_NAME]): chain for chain in chains if chain.get(TABLE_NAME) == own}


def is_unreliable(answers: Iterable[bytes]) -> bool:
    """Return whether the table of an answer is off (``dormant`` in nft(8)), or ends with the program that owns it."""
    return any(int.from_bytes(netlink.attributes(body[4:]).get(TABLE_FLAGS, b"")) & UNRELIABLE for body in answers)


def has_hook(chain: str, chains: Mapping[str, Mapping[int, bytes]]) -> bool:
    """Return whether packets come to a chain as it was made: at its hook, and with its priority."""
    if chain not in HOOKS:
        return chain in chains  # base chains jump to it
    hook = netlink.attributes(chains.get(chain, {}).get(CHAIN_HOOK, b""))
    return (hook.get(HOOK_NUM), hook.get(HOOK_PRIORITY)) == _hook(chain)


def batch(changes: list[Message]) -> list[Message]:
    """Return the messages of a transaction with its ends."""
    begin = Message(BATCH_BEGIN, 0, struct.pack("!BBH", 0, 0, SUBSYSTEM))
    # The kernel reports every error, so one acknowledgement shows that all is done: a thousand would not fit.
    last = Message(changes[-1].kind, changes[-1].flags | netlink.NLM_F_ACK, changes[-1].body)
    return [begin, *changes[:-1], last, Message(BATCH_END, 0, begin.body)]


def changes(
    family: int, wanted: list[Rule], kept: tuple[Rule, ...], existing: frozenset[str] | None, *, recreate: bool
) -> list[Message]:
    """Return the messages that give a table the wanted rules, none if nothing is to change.

    ``existing`` are the names of its chains, None if there is no such table.
    """
    messages = []
    new_table = _message(NEWTABLE, family, netlink.NLM_F_CREATE, OF_TABLE)
    if existing is not None and (recreate or not wanted):
        # With the table created first, the deletion works even if another program has deleted it meanwhile.
        messages += [new_table, _message(DELTABLE, family, 0, OF_TABLE)]
        existing = None
    if wanted:
        messages += [new_table, *_chain_messages(family, wanted, kept, existing or frozenset())]
    return messages


def _chain_messages(family: int, wanted: list[Rule], kept: tuple[Rule, ...], existing: frozenset[str]) -> list[Message]:
    messages, unused = [], []
    known = frozenset(wanted)  # comparing each rule with each other would be costly
    for chain in NFT.tables:
        rules = [rule for rule in wanted if rule.chain == chain]
        if chain in existing and rules and rules == [rule for rule in kept if rule.chain == chain and rule in known]:
            continue
        if rules or chain in existing:
            messages += [_chain_message(family, chain), _rule_message(DELRULE, 0, family, chain)]
            flags = netlink.NLM_F_CREATE | netlink.NLM_F_APPEND
            messages += (_rule_message(NEWRULE, flags, family, chain, encode(rule)) for rule in rules)
        if chain in existing and not rules:
            unused.append(_message(DELCHAIN, family, 0, OF_TABLE, attribute(CHAIN_NAME, string(chain))))
    return messages + unused


def _hook(chain: str) -> tuple[bytes, bytes]:
    """Return the number of a base chain's hook, and its priority, as the kernel writes them."""
    table, hook = HOOKS[chain]
    return struct.pack("!I", HOOK_NUMBERS[hook]), struct.pack("!i", nft_priority(table, hook))


def _message(kind: int, family: int, flags: int, *parts: bytes) -> Message:
    header = struct.pack("!BBH", family, 0, 0)  # struct nfgenmsg
    return Message(SUBSYSTEM << 8 | kind, flags, header + b"".join(parts))


def _chain_message(family: int, chain: str) -> Message:
    parts = [OF_TABLE, attribute(CHAIN_NAME, string(chain))]
    if chain in HOOKS:
        number, priority = _hook(chain)
        parts.append(netlink.nested(CHAIN_HOOK, attribute(HOOK_NUM, number), attribute(HOOK_PRIORITY, priority)))
        parts.append(attribute(CHAIN_POLICY, struct.pack("!I", ACCEPT)))
        parts.append(attribute(CHAIN_TYPE, string(HOOKS[chain][0])))
    return _message(NEWCHAIN, family, netlink.NLM_F_CREATE, *parts)


def _rule_message(kind: int, flags: int, family: int, chain: str, *rule: bytes) -> Message:
    """Return a message about a rule of a chain, or about all its rules."""
    return _message(kind, family, flags, OF_TABLE, attribute(RULE_CHAIN, string(chain)), *rule)
