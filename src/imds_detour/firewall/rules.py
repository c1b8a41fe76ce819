"""What must stand in the kernel, as values. Apply, compare, display and remove all start from these."""

from __future__ import annotations

from imds_detour.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import TypeVar

    from imds_detour.endpoint import Address, Endpoint

    Item = TypeVar("Item")

COMMENT = "imds-detour"
"""What every rule of ours says about where it comes from."""


class Layout(Value):
    """Where a backend keeps our rules.

    Attributes:
        redirect: the chain in table nat.
        guard: the chain in table filter.
        shared: whether OUTPUT is everybody's, and jumps lead from there to our chains; else they hook in themselves.

    """

    redirect: str
    guard: str
    shared: bool


LEGACY = Layout("IMDS_DETOUR", "IMDS_DETOUR_GUARD", shared=True)
"""Chain names are at most 28 bytes (XT_FUNCTION_MAXNAMELEN in linux/netfilter/x_tables.h)."""
NFT = Layout("nat_output", "guard_output", shared=False)
"""Base chains of a table of our own."""
NFT_TABLE = "imds_detour"
"""That table."""
NFT_PRIORITIES = {"nat": -101, "filter": -1}
"""One before everybody else's at the same hook (NF_IP_PRI_NAT_DST, NF_IP_PRI_FILTER): the first to match decides."""


class Jump(Value):
    """Go on in a chain of ours."""

    chain: str


class Dnat(Value):
    """Send the connection to the mock instead."""

    to: Endpoint


class Reject(Value):
    """Refuse at once, in the way of the protocol, so that an SDK moves on instead of hanging."""

    reply: str


class Drop(Value):
    """Refuse without a word, where the kernel cannot reject: as safe, and an SDK waits for its own timeout."""


Action = Jump | Dnat | Reject | Drop


class Rule(Value):
    """One rule of a chain.

    Attributes:
        table: ``nat`` or ``filter``.
        chain: a chain of ours, or OUTPUT for the jump to it.
        target: what happens to a packet that matches.
        destination: the address that the packet goes to; None for any.
        protocol: ``tcp``; None for any.
        port: the TCP port that the packet goes to; None for any.
        version: 4 or 6, for IPv4 and IPv6 have tables of their own.

    """

    table: str
    chain: str
    target: Action
    destination: Address | None = None
    protocol: str | None = None
    port: int | None = None
    version: int = 4

    @property
    def spec(self) -> str:
        """The rule as iptables-save(8) writes it."""
        words = ["-A", self.chain]
        if self.destination is not None:
            words += ["-d", f"{self.destination}/{self.destination.max_prefixlen}"]
        if self.protocol is not None:
            words += ["-p", self.protocol]
        if self.port is not None:
            words += ["-m", "tcp", "--dport", str(self.port)]
        words += ["-m", "comment", "--comment", COMMENT]
        match self.target:
            case Jump(chain):
                words += ["-j", chain]
            case Dnat(to):
                words += ["-j", "DNAT", "--to-destination", str(to)]
            case Reject(reply):
                words += ["-j", "REJECT", "--reject-with", reply]
            case Drop():
                words += ["-j", "DROP"]
        return " ".join(words)


class Redirect(Value):
    """An endpoint and the mock that answers for it."""

    endpoint: Endpoint
    mock: Endpoint


class Installed(Value):
    """A rule as the kernel holds it.

    Attributes:
        rule: the rule; None where one that we did not write stands in a chain of ours.
        packets: how many packets it has matched; in table nat that is one for each connection.

    """

    rule: Rule | None
    packets: int


def guard(addresses: Iterable[Address], layout: Layout, *, reject: bool = True) -> tuple[Rule, ...]:
    """Return the rules that refuse whatever goes to these addresses, IPv4 first.

    Table filter comes after nat in OUTPUT, so these see just what was not redirected. Without ``reject`` it is dropped.
    """
    rules: list[Rule] = []
    for version, here in _by_version(addresses, lambda address: address):
        reply = "icmp-port-unreachable" if version == 4 else "icmp6-port-unreachable"
        refuse = (("tcp", Reject("tcp-reset")), (None, Reject(reply))) if reject else ((None, Drop()),)
        if layout.shared:
            rules += (_jump("filter", layout.guard, address) for address in here)
            # Only what goes to one of the addresses gets here.
            rules += (
                Rule("filter", layout.guard, target, None, protocol, None, version) for protocol, target in refuse
            )
        else:
            rules += (
                Rule("filter", layout.guard, target, address, protocol, None, version)
                for address in here
                for protocol, target in refuse
            )
    return tuple(rules)


def redirects(wanted: Iterable[Redirect], layout: Layout) -> tuple[Rule, ...]:
    """Return the rules that send each endpoint's connections to its mock, IPv4 first."""
    rules: list[Rule] = []
    for _, here in _by_version(wanted, lambda redirect: redirect.endpoint.address):
        if layout.shared:
            addresses = dict.fromkeys(redirect.endpoint.address for redirect in here)
            rules += (_jump("nat", layout.redirect, address) for address in addresses)
        rules += (translation(redirect, layout) for redirect in here)
    return tuple(rules)


def translation(redirect: Redirect, layout: Layout) -> Rule:
    """Return the rule that sends one endpoint's connections to its mock; its counter is the proof that it was used."""
    address = redirect.endpoint.address
    return Rule(
        "nat", layout.redirect, Dnat(redirect.mock), address, "tcp", redirect.endpoint.port, version=address.version
    )


def _jump(table: str, chain: str, address: Address) -> Rule:
    return Rule(table, "OUTPUT", Jump(chain), destination=address, version=address.version)


def _by_version(items: Iterable[Item], address: Callable[[Item], Address]) -> Iterator[tuple[int, list[Item]]]:
    items = list(items)
    for version in (4, 6):
        if here := [item for item in items if address(item).version == version]:
            yield version, here
