"""The netlink messages that read and change imds-detour's nftables table."""

from __future__ import annotations

import struct

from imds_detour.firewall.rules import NFT, NFT_TABLE, nft_priority
from imds_detour.system.netlink import (
    NLM_F_ACK,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_DUMP,
    Message,
    attribute,
    attributes,
    nested,
    string,
    text,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from imds_detour.firewall.rules import Rule

NETLINK_NETFILTER = 12  # linux/netlink.h
SUBSYSTEM, BATCH_BEGIN, BATCH_END = 10, 16, 17  # linux/netfilter/nfnetlink.h: NFNL_SUBSYS_NFTABLES, NFNL_MSG_BATCH_*
# linux/netfilter/nf_tables.h
NEWTABLE, GETTABLE, DELTABLE, NEWCHAIN, GETCHAIN, DELCHAIN, NEWRULE, GETRULE, DELRULE, GETGEN = *range(9), 16
TABLE_NAME, TABLE_FLAGS, DORMANT = 1, 2, 1
RULE_TABLE, RULE_CHAIN = 1, 2
CHAIN_TABLE, CHAIN_NAME, CHAIN_HOOK, CHAIN_POLICY, CHAIN_TYPE = 1, 3, 4, 5, 7
HOOK_NUM, HOOK_PRIORITY = 1, 2
ACCEPT = 1  # linux/netfilter.h: NF_ACCEPT
HOOK_NUMBERS = {"prerouting": 0, "forward": 2, "output": 3, "postrouting": 4}
"""linux/netfilter.h: NF_INET_*."""

TABLE_ATTRIBUTE = string(NFT_TABLE)
HOOKS = {chain: (table, hook) for table, hook, chain in NFT.hooks}
"""Table and hook of each base chain."""


def get_generation() -> Message:
    """Return a question that every kernel with nftables answers, and only with NET_ADMIN."""
    return _message(GETGEN, 0, NLM_F_ACK)


def get_rules(family: int) -> Message:
    """Return the question for all rules of the table."""
    return _message(GETRULE, family, NLM_F_DUMP, attribute(RULE_TABLE, TABLE_ATTRIBUTE))


def get_table(family: int) -> Message:
    """Return the question for the table itself."""
    return _message(GETTABLE, family, NLM_F_ACK, attribute(TABLE_NAME, TABLE_ATTRIBUTE))


def get_chains(family: int) -> Message:
    """Return the question for the chains of all tables."""
    return _message(GETCHAIN, family, NLM_F_DUMP)


def own_chains(chains: Iterable[dict[int, bytes]]) -> dict[str, dict[int, bytes]]:
    """Return the chains of imds-detour's table by name."""
    return {text(chain[CHAIN_NAME]): chain for chain in chains if chain.get(CHAIN_TABLE) == TABLE_ATTRIBUTE}


def is_dormant(answers: Iterable[bytes]) -> bool:
    """Return whether the table of an answer is switched off as a whole (``flags dormant`` in nft(8))."""
    return any(int.from_bytes(attributes(body[4:]).get(TABLE_FLAGS, b""), "big") & DORMANT for body in answers)


def has_hook(chain: str, chains: Mapping[str, Mapping[int, bytes]]) -> bool:
    """Return whether packets come to a chain as it was made: at its hook, and with its priority."""
    if chain not in HOOKS:
        return True  # base chains jump to it
    hook = attributes(chains.get(chain, {}).get(CHAIN_HOOK, b""))
    return (hook.get(HOOK_NUM), hook.get(HOOK_PRIORITY)) == _hook(chain)


def batch(changes: list[Message]) -> list[Message]:
    """Return the messages of a transaction with its ends."""
    begin = Message(BATCH_BEGIN, 0, struct.pack("!BBH", 0, 0, SUBSYSTEM))
    acknowledged = [Message(message.kind, message.flags | NLM_F_ACK, message.body) for message in changes]
    return [begin, *acknowledged, Message(BATCH_END, 0, begin.body)]


def changes(
    family: int, wanted: list[Rule], kept: tuple[Rule, ...], existing: frozenset[str] | None, *, recreate: bool
) -> list[Message]:
    """Return the messages that give a table the wanted rules, none if nothing is to change.

    ``existing`` are the names of its chains, None if there is no such table.
    """
    messages = []
    if existing is not None and (recreate or not wanted):
        # With the table created first, the deletion works even if another program has deleted it meanwhile.
        messages += [_table_message(NEWTABLE, family), _table_message(DELTABLE, family)]
        existing = None
    if wanted:
        messages.append(_table_message(NEWTABLE, family))
        messages += _chain_messages(family, wanted, kept, existing or frozenset())
    return messages


def _chain_messages(family: int, wanted: list[Rule], kept: tuple[Rule, ...], existing: frozenset[str]) -> list[Message]:
    from imds_detour.firewall.nftables.codec import encode  # noqa: PLC0415  (legacy iptables does without)

    messages, unused = [], []
    for chain in NFT.tables:
        rules = [rule for rule in wanted if rule.chain == chain]
        if chain in existing and rules and rules == [rule for rule in kept if rule.chain == chain and rule in wanted]:
            continue
        if rules or chain in existing:
            messages += [_chain_message(family, chain), _rule_message(DELRULE, 0, family, chain)]
            flags = NLM_F_CREATE | NLM_F_APPEND
            messages += (_rule_message(NEWRULE, flags, family, chain, encode(rule)) for rule in rules)
        if chain in existing and not rules:
            unused.append(_message(DELCHAIN, family, 0, *_chain_name(chain)))
    return messages + unused


def _hook(chain: str) -> tuple[bytes, bytes]:
    """Return the number of a base chain's hook, and its priority, as the kernel writes them."""
    table, hook = HOOKS[chain]
    return struct.pack("!I", HOOK_NUMBERS[hook]), struct.pack("!i", nft_priority(table, hook))


def _message(kind: int, family: int, flags: int, *parts: bytes) -> Message:
    header = struct.pack("!BBH", family, 0, 0)  # struct nfgenmsg
    return Message(SUBSYSTEM << 8 | kind, flags, header + b"".join(parts))


def _table_message(kind: int, family: int) -> Message:
    return _message(kind, family, NLM_F_CREATE if kind == NEWTABLE else 0, attribute(TABLE_NAME, TABLE_ATTRIBUTE))


def _chain_name(chain: str) -> tuple[bytes, bytes]:
    return attribute(CHAIN_TABLE, TABLE_ATTRIBUTE), attribute(CHAIN_NAME, string(chain))


def _chain_message(family: int, chain: str) -> Message:
    if chain not in HOOKS:
        return _message(NEWCHAIN, family, NLM_F_CREATE, *_chain_name(chain))
    number, priority = _hook(chain)
    return _message(
        NEWCHAIN,
        family,
        NLM_F_CREATE,
        *_chain_name(chain),
        nested(CHAIN_HOOK, attribute(HOOK_NUM, number), attribute(HOOK_PRIORITY, priority)),
        attribute(CHAIN_POLICY, struct.pack("!I", ACCEPT)),
        attribute(CHAIN_TYPE, string(HOOKS[chain][0])),
    )


def _rule_message(kind: int, flags: int, family: int, chain: str, *rule: bytes) -> Message:
    """Return a message about a rule of a chain, or about all its rules."""
    table = attribute(RULE_TABLE, TABLE_ATTRIBUTE)
    return _message(kind, family, flags, table, attribute(RULE_CHAIN, string(chain)), *rule)
