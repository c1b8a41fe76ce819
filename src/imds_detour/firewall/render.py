"""Rules as text for iptables-restore(8) and nft(8)."""

from __future__ import annotations

from imds_detour.firewall.rules import (
    COMMENT,
    LEGACY,
    NFT,
    NFT_TABLE,
    Dnat,
    Drop,
    Jump,
    Layout,
    Masquerade,
    Redirect,
    Reject,
    Rule,
    nat_rules,
    nft_priority,
)

HOOKS = {chain: at for at, chain in NFT.hooks.items()}
"""Table and hook of each base chain."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def redirect_rules(redirects: Iterable[Redirect], layout: Layout) -> tuple[Rule, ...]:
    """Return the rules that a start installs for these redirects."""
    return nat_rules(dict.fromkeys(redirects, COMMENT), layout)


def iptables_text(rules: Sequence[Rule], version: int) -> str:
    """Return the rules of an IP version, in the legacy layout, as text for ``iptables-legacy-restore --noflush``."""
    lines = []
    for table, chain in (("filter", LEGACY.guard), ("nat", LEGACY.redirect)):
        of_table = [rule for rule in rules if rule.table == table and rule.version == version]
        # A jump after a foreign ACCEPT has no effect, so jumps are inserted. That reverses their order.
        jumps = [rule.spec.replace("-A ", "-I ", 1) for rule in reversed(of_table) if rule.chain != chain]
        jumps = [line.replace(f"-I {shared} ", f"-I {shared} 1 ") for line in jumps for shared in [line.split()[1]]]
        specs = [rule.spec for rule in of_table if rule.chain == chain]
        if of_table:
            lines += [f"*{table}", f":{chain} - [0:0]", *specs, *jumps, "COMMIT"]
    return "".join(f"{line}\n" for line in lines)


def nft_text(rules: Sequence[Rule]) -> str:
    """Return rules in the layout of nftables as text for ``nft -f -``. It replaces the installed ones."""
    text = ""
    for version, family in ((4, "ip"), (6, "ip6")):
        of_version = [rule for rule in rules if rule.version == version]
        if of_version:
            text += (
                f"add table {family} {NFT_TABLE}\ndelete table {family} {NFT_TABLE}\ntable {family} {NFT_TABLE} {{\n"
            )
            chains = [chain for chain in (NFT.guard, *HOOKS) if any(rule.chain == chain for rule in of_version)]
            text += "\n".join(_nft_chain(of_version, chain) for chain in chains) + "}\n"
    return text


def _nft_chain(rules: Sequence[Rule], chain: str) -> str:
    head = f"\tchain {chain} {{\n"
    if chain in HOOKS:
        table, hook = HOOKS[chain]
        head += f"\t\ttype {table} hook {hook} priority {nft_priority(table, hook)}; policy accept;\n"
    return head + "".join(f"\t\t{_nft_rule(rule)}\n" for rule in rules if rule.chain == chain) + "\t}\n"


def _nft_rule(rule: Rule) -> str:
    parts = [f"{'ip' if rule.version == 4 else 'ip6'} daddr {rule.destination}"] if rule.destination else []
    if rule.port is not None:
        parts.append(f"{rule.protocol} dport {rule.port}")
    elif rule.protocol is not None:
        parts.append(f"meta l4proto {rule.protocol}")
    parts.append("counter")
    match rule.action:
        case Dnat(to):
            parts.append(f"dnat to {to}")
        case Reject("tcp-reset"):
            parts.append("reject with tcp reset")
        case Drop():
            parts.append("drop")
        case Masquerade():
            parts.append("masquerade")
        case Jump(chain):
            parts.append(f"jump {chain}")
        case _:
            parts.append("reject")
    return " ".join((*parts, f'comment "{rule.comment}"'))
