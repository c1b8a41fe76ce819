"""What of ours stands in this network namespace, as one value. Pure: the kernel's lists come in as they were read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from imds_detour.endpoint import Endpoint
from imds_detour.firewall import rules
from imds_detour.firewall.rules import Dnat, Drop, Redirect

if TYPE_CHECKING:
    from collections.abc import Iterable

    from imds_detour.endpoint import Address
    from imds_detour.firewall.rules import Installed, Layout, Rule


@dataclass(frozen=True, slots=True)
class Used:
    """A redirect that stands.

    Attributes:
        redirect: from where to where.
        connections: how many it has redirected.

    """

    redirect: Redirect
    connections: int


@dataclass(frozen=True, slots=True)
class Guarded:
    """An address that is guarded.

    Attributes:
        address: whatever goes there and is not redirected is refused.
        drops: whether it is dropped without a word, instead of rejected.
        refused: how many packets have been.

    """

    address: Address
    drops: bool
    refused: int


@dataclass(frozen=True, slots=True)
class Standing:
    """What one firewall holds of ours.

    Attributes:
        backend: the firewall's name.
        rules: every rule in chains of ours, and the jumps to them.
        redirects: those that are complete.
        guarded: the addresses whose guard is complete.
        faults: what is not as we leave it, a line each: rules that are missing, and rules that are not ours.

    """

    backend: str
    rules: tuple[Installed, ...]
    redirects: tuple[Used, ...]
    guarded: tuple[Guarded, ...]
    faults: tuple[str, ...]


def standing(backend: str, layout: Layout, found: tuple[Installed, ...]) -> Standing:
    """Make sense of a firewall's rules."""
    present = [installed.rule for installed in found if installed.rule is not None]
    packets: dict[Rule, int] = {}
    for installed in found:
        if installed.rule is not None:
            packets[installed.rule] = packets.get(installed.rule, 0) + installed.packets
    redirects = [rule for rule in present if isinstance(rule.action, Dnat)]
    wanted = [rule for each in redirects for rule in _redirect_rules(each, layout)]
    # The jumps say which addresses are guarded; where the chain hooks in by itself, its rules do.
    addresses = _unique(rule.destination for rule in present if rule.table == "filter" and rule.destination is not None)
    guarded = []
    for address in addresses:
        drops = any(
            isinstance(rule.action, Drop) and rule.version == address.version and rule.destination in (None, address)
            for rule in present
        )
        needed = rules.guard_rules([address], layout, reject=not drops)
        wanted += needed
        if all(rule in packets for rule in needed):
            seen = sum(packets[rule] for rule in needed if rule.destination == address)
            guarded.append(Guarded(address, drops, seen))
    missing = [rule for rule in _unique(wanted) if rule not in packets]
    needless = [rule for rule in _unique(present) if rule not in wanted]
    foreign = len(found) - len(present)
    return Standing(
        backend=backend,
        rules=found,
        redirects=tuple(
            Used(redirect, packets[rule])
            for rule in _unique(redirects)
            if all(needed in packets for needed in _redirect_rules(rule, layout)) and (redirect := _redirect(rule))
        ),
        guarded=tuple(guarded),
        faults=(
            *(f"missing: {rule.spec}" for rule in missing),
            *(f"without use: {rule.spec}" for rule in needless),
            *([f"not ours: {foreign} rules in our chains"] if foreign else []),
        ),
    )


def _redirect(rule: Rule) -> Redirect | None:
    if not isinstance(rule.action, Dnat) or rule.destination is None or rule.port is None:
        return None
    return Redirect(Endpoint(rule.destination, rule.port), rule.action.to)


def _redirect_rules(rule: Rule, layout: Layout) -> tuple[Rule, ...]:
    redirect = _redirect(rule)
    return rules.redirect_rules([redirect], layout) if redirect else ()


def _unique(items: Iterable[rules.Item]) -> list[rules.Item]:
    return list(dict.fromkeys(items))
