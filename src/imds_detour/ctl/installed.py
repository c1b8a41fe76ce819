"""Make sense of the rules that a firewall holds. Pure: they come in as they were read."""

from __future__ import annotations

from dataclasses import dataclass

from imds_detour.endpoint import Address, Endpoint
from imds_detour.firewall import rules
from imds_detour.firewall.rules import Dnat, Drop, Installed, Layout, Redirect, Rule


@dataclass(frozen=True, slots=True)
class ActiveRedirect:
    """A redirect that is installed completely."""

    redirect: Redirect  # from the metadata endpoint to the mock
    connections: int  # how many it has redirected


@dataclass(frozen=True, slots=True)
class GuardedAddress:
    """An address whose guard is installed completely."""

    address: Address  # packets to it that are not redirected are refused
    drops: bool  # whether they are dropped instead of rejected
    refused: int  # how many have been refused


@dataclass(frozen=True, slots=True)
class InstalledRules:
    """What one firewall holds of imds-detour."""

    backend: str  # the firewall's name
    rules: tuple[Installed, ...]  # every rule in imds-detour's chains, and the jumps to them
    redirects: tuple[ActiveRedirect, ...]  # the complete redirects
    guarded: tuple[GuardedAddress, ...]  # the addresses with a complete guard
    faults: tuple[str, ...]  # differences from what imds-detour installs, a line each: missing rules and foreign rules


def summarize(backend: str, layout: Layout, installed: tuple[Installed, ...]) -> InstalledRules:
    """Return what a firewall's rules amount to."""
    packets: dict[Rule, int] = {}
    for entry in installed:
        if entry.rule is not None:
            packets[entry.rule] = packets.get(entry.rule, 0) + entry.packets
    expected: dict[Rule, None] = {}
    redirects = []
    for rule, connections in packets.items():
        if redirect := _redirect(rule):
            needed = rules.redirect_rules([redirect], layout)
            expected.update(dict.fromkeys(needed))
            if all(part in packets for part in needed):
                redirects.append(ActiveRedirect(redirect, connections))
    guarded = []
    # The jumps, or the rules of a chain with a hook, say which addresses are guarded.
    for address in dict.fromkeys(rule.destination for rule in packets if rule.table == "filter" and rule.destination):
        drops = _drops(address, packets)
        needed = rules.guard_rules([address], layout, reject=not drops)
        expected.update(dict.fromkeys(needed))
        if all(part in packets for part in needed):
            refused = sum(packets[part] for part in needed if part.destination == address)
            guarded.append(GuardedAddress(address, drops, refused))
    foreign = sum(entry.rule is None for entry in installed)
    faults = [f"missing: {rule.spec}" for rule in expected if rule not in packets]
    faults += [f"without use: {rule.spec}" for rule in packets if rule not in expected]
    faults += [f"foreign: {foreign} rules in imds-detour's chains"] if foreign else []
    return InstalledRules(backend, installed, tuple(redirects), tuple(guarded), tuple(faults))


def _drops(address: Address, packets: dict[Rule, int]) -> bool:
    return any(
        isinstance(rule.action, Drop) and rule.version == address.version and rule.destination in (None, address)
        for rule in packets
    )


def _redirect(rule: Rule) -> Redirect | None:
    if not isinstance(rule.action, Dnat) or rule.destination is None or rule.port is None:
        return None
    return Redirect(Endpoint(rule.destination, rule.port), rule.action.to)
