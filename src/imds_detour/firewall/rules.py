"""Firewall rules as values. Installing, comparing, listing and removing them all start from these."""

from __future__ import annotations

from functools import cache

from imds_detour.endpoint import Address, Endpoint
from imds_detour.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

COMMENT = "imds-detour"
"""The comment of every rule that imds-detour installs."""
SIDECAR_COMMENT = "imds-detour-sidecar"
"""The comment of a sidecar's redirects, which it removes when it ends. A start that uses one replaces its comment."""

GUARD_HOOKS = ("output", "forward")
"""The netfilter hooks with a guard: packets of processes, and those that come from a bridge in the namespace."""


class Layout(Value):
    """The chains that hold a firewall's rules."""

    redirect: str  # the chain of table nat; empty if redirects are in the chains of their hooks
    guard: str  # the chain of table filter that refuses
    hooks: Mapping[tuple[str, str], str]  # the chains where packets enter, by table and hook

    @property
    def tables(self) -> dict[str, str]:
        """The table of each chain. A chain comes after the one that it jumps to."""
        own = {self.guard: "filter", self.redirect or self.hooks["nat", "output"]: "nat"}
        return {**own, **{chain: table for (table, _), chain in self.hooks.items()}}


LEGACY = Layout(
    "IMDS_DETOUR",
    "IMDS_DETOUR_GUARD",
    {
        ("filter", "output"): "OUTPUT",
        ("filter", "forward"): "FORWARD",
        ("nat", "output"): "OUTPUT",
        ("nat", "prerouting"): "PREROUTING",
    },
)
"""Rules in shared chains jump to these chains. Names are at most 28 bytes (XT_FUNCTION_MAXNAMELEN in
linux/netfilter/x_tables.h)."""
NFT = Layout(
    "",
    "guard",
    {
        ("filter", "output"): "guard_output",
        ("filter", "forward"): "guard_forward",
        ("nat", "output"): "nat_output",
        ("nat", "prerouting"): "nat_prerouting",
        ("nat", "postrouting"): "nat_postrouting",
    },
)
"""Base chains of the table NFT_TABLE, and the chain that refuses."""
NFT_TABLE = "imds_detour"


def nft_priority(table: str, hook: str) -> int:
    """Return the priority of a base chain, one less than the kernel's for such a table: a lower priority runs first."""
    # linux/netfilter_ipv4.h: NF_IP_PRI_FILTER, NF_IP_PRI_NAT_SRC, NF_IP_PRI_NAT_DST
    return (0 if table == "filter" else 100 if hook == "postrouting" else -100) - 1


class Jump(Value):
    """Continue in a chain of the layout."""

    chain: str


class Dnat(Value):
    """Send the connection to the mock."""

    to: Endpoint


class Reject(Value):
    """Refuse with a reply, so that an SDK does not wait for its timeout."""

    reply: str


class Drop(Value):
    """Refuse without a reply, on a kernel that cannot reject. An SDK waits for its timeout."""


class Masquerade(Value):
    """Give the connection an address of this machine: a mock on the client's own bridge would reply past it."""


Action = Jump | Dnat | Reject | Drop | Masquerade


class Rule(Value):
    """A rule of a chain."""

    table: str  # ``nat`` or ``filter``
    chain: str  # a chain of the layout
    action: Action
    destination: Address | None = None  # the packet's destination address; None for any
    protocol: str | None = None  # ``tcp``; None for any
    port: int | None = None  # the packet's TCP destination port; None for any
    version: int = 4  # 4 or 6: IPv4 and IPv6 have separate tables
    comment: str = COMMENT

    @property
    def spec(self) -> str:
        """The rule as iptables-save(8) writes it."""
        arguments = ["-A", self.chain]
        if self.destination is not None:
            arguments += ["-d", f"{self.destination}/{self.destination.max_prefixlen}"]
        if self.protocol is not None:
            arguments += ["-p", self.protocol]
        if self.port is not None:
            arguments += ["-m", "tcp", "--dport", str(self.port)]
        arguments += ["-m", "comment", "--comment", self.comment]
        match self.action:
            case Jump(chain):
                arguments += ["-j", chain]
            case Dnat(to):
                arguments += ["-j", "DNAT", "--to-destination", str(to)]
            case Reject(reply):
                arguments += ["-j", "REJECT", "--reject-with", reply]
            case Drop():
                arguments += ["-j", "DROP"]
            case Masquerade():
                arguments += ["-j", "MASQUERADE"]
        return " ".join(arguments)


class Redirect(Value):
    """A metadata endpoint and the mock that answers for it."""

    endpoint: Endpoint
    mock: Endpoint


class Installed(Value):
    """A rule as the kernel holds it."""

    rule: Rule | None  # None for a foreign rule in imds-detour's chains
    packets: int  # the packets that it matched; table nat sees the first packet of a connection only


def guard_rules(addresses: Iterable[Address], layout: Layout, *, reject: bool = True) -> tuple[Rule, ...]:
    """Return the rules that refuse all packets to these addresses that table nat has not redirected, IPv4 first."""
    rules: list[Rule] = []
    addresses = tuple(addresses)
    for version in sorted({address.version for address in addresses}):
        reply = "icmp-port-unreachable" if version == 4 else "icmp6-port-unreachable"
        refuse = (("tcp", Reject("tcp-reset")), (None, Reject(reply))) if reject else ((None, Drop()),)
        for hook in GUARD_HOOKS:
            chain = layout.hooks["filter", hook]
            rules += (_guard_jump(chain, layout.guard, address) for address in addresses if address.version == version)
        # The jumps let only packets to these addresses into the chain.
        rules += (Rule("filter", layout.guard, action, None, protocol, None, version) for protocol, action in refuse)
    return tuple(rules)


@cache  # a start compares these with the installed ones several times
def _guard_jump(chain: str, guard: str, address: Address) -> Rule:
    return Rule("filter", chain, Jump(guard), address, None, None, address.version, COMMENT)


def guarded_addresses(rules: Iterable[Rule]) -> tuple[Address, ...]:
    """Return the addresses that these rules of table filter guard, in their order."""
    jumps = (rule for rule in rules if rule.table == "filter" and isinstance(rule.action, Jump))
    return tuple(dict.fromkeys(jump.destination for jump in jumps if jump.destination is not None))


def nat_rules(redirects: Mapping[Redirect, str], layout: Layout, *, forwarded: bool = False) -> tuple[Rule, ...]:
    """Return the rules that send the connections of endpoints to their mocks, IPv4 first, by redirect and comment.

    ``forwarded`` is whether they are for what comes from bridges in the namespace, too.
    """
    rules: list[Rule] = []
    for version in (4, 6):
        of_version = [redirect for redirect in redirects if redirect.endpoint.address.version == version]
        translations = [dnat_rule(redirect, layout).replace(comment=redirects[redirect]) for redirect in of_version]
        for hook in ("output", "prerouting") if forwarded else ("output",):
            chain = layout.hooks["nat", hook]
            if layout.redirect:
                addresses = dict.fromkeys(redirect.endpoint.address for redirect in of_version)
                rules += (Rule("nat", chain, Jump(layout.redirect), address, version=version) for address in addresses)
            else:
                rules += (rule.replace(chain=chain) for rule in translations)
        if layout.redirect:
            rules += translations
        elif forwarded:
            chain = layout.hooks["nat", "postrouting"]
            mocks = dict.fromkeys(redirect.mock for redirect in of_version)
            rules += (Rule("nat", chain, Masquerade(), at.address, "tcp", at.port, version) for at in mocks)
    return tuple(rules)


def is_forwarded(rules: Iterable[Rule], layout: Layout) -> bool:
    """Return whether rules redirect what comes from bridges in the namespace."""
    return any(rule.chain == layout.hooks["nat", "prerouting"] for rule in rules)


def redirects_of(rules: Iterable[Rule]) -> dict[Redirect, str]:
    """Return the redirects that rules make, with their comments."""
    return {
        Redirect(Endpoint(rule.destination, rule.port), rule.action.to): rule.comment
        for rule in rules
        if isinstance(rule.action, Dnat) and rule.destination is not None and rule.port is not None
    }


def dnat_rule(redirect: Redirect, layout: Layout) -> Rule:
    """Return the rule that sends the connections of an endpoint to its mock. It counts them."""
    address = redirect.endpoint.address
    chain = layout.redirect or layout.hooks["nat", "output"]
    return Rule("nat", chain, Dnat(redirect.mock), address, "tcp", redirect.endpoint.port, version=address.version)
