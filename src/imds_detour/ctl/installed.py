"""Which firewalls can be read, and what the rules in one do."""

from imds_detour.endpoint import Address
from imds_detour.errors import DetourError
from imds_detour.firewall import rules
from imds_detour.firewall.base import Firewall
from imds_detour.firewall.rules import Drop, Installed, Layout, Redirect, Rule
from imds_detour.firewall.select import FirewallSelector
from imds_detour.value import Value


class ActiveRedirect(Value):
    """A redirect with all its rules."""

    redirect: Redirect
    connections: int  # redirected connections


class GuardedAddress(Value):
    """An address with all rules of its guard."""

    address: Address
    drops: bool  # whether the guard drops instead of rejecting
    refused: int  # refused packets


class InstalledRules(Value):
    """The rules of imds-detour in a firewall."""

    backend: str  # the firewall's name
    rules: tuple[Installed, ...]  # all rules in imds-detour's chains, and the jumps to them
    redirects: tuple[ActiveRedirect, ...]
    guarded: tuple[GuardedAddress, ...]
    faults: tuple[str, ...]  # missing, unused and foreign rules, a line each


def summarize(backend: str, layout: Layout, installed: tuple[Installed, ...]) -> InstalledRules:
    """Return the redirects and the guarded addresses that the rules make, and their faults."""
    packets: dict[Rule, int] = {}
    for entry in installed:
        if entry.rule is not None:
            packets[entry.rule] = packets.get(entry.rule, 0) + entry.packets
    forwarded = rules.is_forwarded(packets, layout)
    expected: dict[Rule, None] = {}
    used: dict[Redirect, int] = {}  # in nftables, bridges have a rule of their own for the same redirect
    for rule, connections in packets.items():
        for redirect in rules.redirects_of([rule]):
            needed = rules.nat_rules({redirect: rule.comment}, layout, forwarded=forwarded)
            expected.update(dict.fromkeys(needed))
            if all(part in packets for part in needed):
                used[redirect] = used.get(redirect, 0) + connections
    guarded = []
    for address in rules.guarded_addresses(packets):
        drops = any(isinstance(rule.action, Drop) and rule.version == address.version for rule in packets)
        needed = rules.guard_rules([address], layout, reject=not drops)
        expected.update(dict.fromkeys(needed))
        if all(part in packets for part in needed):
            refused = sum(packets[part] for part in needed if part.destination == address)
            guarded.append(GuardedAddress(address, drops, refused))
    foreign = sum(entry.rule is None for entry in installed)
    faults = [f"missing: {rule.spec}" for rule in expected if rule not in packets]
    faults += [f"unused: {rule.spec}" for rule in packets if rule not in expected]
    faults += [f"foreign: {foreign} rules in imds-detour's chains"] if foreign else []
    redirects = tuple(ActiveRedirect(*pair) for pair in used.items())
    return InstalledRules(backend, installed, redirects, tuple(guarded), tuple(faults))


def usable(selector: FirewallSelector) -> tuple[list[Firewall], dict[str, DetourError]]:
    """Return all firewalls that can be used, and why the others cannot, by name; DetourError if there are none."""
    legacy = selector.start_helpers()
    reasons = {"legacy iptables": selector.refusal(legacy), "nftables": selector.nft_refusal()}
    refused = {name: reason for name, reason in reasons.items() if reason is not None}
    firewalls = [firewall for firewall in (legacy, selector.nft) if not isinstance(firewall, DetourError)]
    if len(refused) == len(reasons):
        raise refused["nftables"]
    return [firewall for firewall in firewalls if firewall.name not in refused], refused
