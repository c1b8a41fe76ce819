"""Our rules as people read and load them: for iptables-restore(8) and for nft(8). Pure."""

from __future__ import annotations

from imds_detour.firewall.rules import COMMENT, LEGACY, NFT, NFT_PRIORITIES, NFT_TABLE, Dnat, Drop, Reject

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from imds_detour.firewall.rules import Rule


def restore(rules: Sequence[Rule], version: int) -> str:
    """Return the rules of one IP version in LEGACY layout, for ``iptables-legacy-restore --noflush``."""
    lines = []
    for table, chain in (("filter", LEGACY.guard), ("nat", LEGACY.redirect)):
        here = [rule for rule in rules if rule.table == table and rule.version == version]
        # A jump is inserted: behind somebody's ACCEPT it would do nothing. Several would come out in reverse.
        jumps = [rule.spec.replace("-A OUTPUT", "-I OUTPUT 1") for rule in reversed(here) if rule.chain != chain]
        own = [rule.spec for rule in here if rule.chain == chain]
        if here:
            lines += [f"*{table}", f":{chain} - [0:0]", *own, *jumps, "COMMIT"]
    return "".join(f"{line}\n" for line in lines)


def nft(rules: Sequence[Rule]) -> str:
    """Return the rules in NFT layout, for ``nft -f -``: in one transaction they take the place of what is there."""
    text = ""
    for version, family in ((4, "ip"), (6, "ip6")):
        here = [rule for rule in rules if rule.version == version]
        if here:
            text += (
                f"add table {family} {NFT_TABLE}\ndelete table {family} {NFT_TABLE}\ntable {family} {NFT_TABLE} {{\n"
            )
            text += "\n".join(_nft_chain(here, table, chain) for table, chain in _chains(here)) + "}\n"
    return text


def _chains(rules: Sequence[Rule]) -> list[tuple[str, str]]:
    both = (("filter", NFT.guard), ("nat", NFT.redirect))
    return [(table, chain) for table, chain in both if any(rule.chain == chain for rule in rules)]


def _nft_chain(rules: Sequence[Rule], table: str, chain: str) -> str:
    head = f"\tchain {chain} {{\n\t\ttype {table} hook output priority {NFT_PRIORITIES[table]}; policy accept;\n"
    return head + "".join(f"\t\t{_nft_rule(rule)}\n" for rule in rules if rule.chain == chain) + "\t}\n"


def _nft_rule(rule: Rule) -> str:
    words = [f"{'ip' if rule.version == 4 else 'ip6'} daddr {rule.destination}"]
    if rule.port is not None:
        words.append(f"{rule.protocol} dport {rule.port}")
    elif rule.protocol is not None:
        words.append(f"meta l4proto {rule.protocol}")
    words.append("counter")
    match rule.target:
        case Dnat(to):
            words.append(f"dnat to {to}")
        case Reject("tcp-reset"):
            words.append("reject with tcp reset")
        case Drop():
            words.append("drop")
        case _:
            words.append("reject")
    return " ".join((*words, f'comment "{COMMENT}"'))
