"""Changes of imds-detour's rules in a table. A firewall computes the rules from the installed ones, under its lock."""

from __future__ import annotations

from imds_detour.firewall.rules import COMMENT, guard_rules, guarded_addresses, is_forwarded, nat_rules, redirects_of
from imds_detour.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from imds_detour.endpoint import Address
    from imds_detour.firewall.rules import Layout, Redirect, Rule

    Installed = tuple[Rule, ...]


class Replace(Value):
    """Install these rules and no others."""

    table: str  # ``nat`` or ``filter``
    rules: tuple[Rule, ...] = ()

    def wanted(self, _installed: Installed, _layout: Layout) -> tuple[Rule, ...]:
        """Return the rules."""
        return self.rules


class AddGuard(Value):
    """Guard these addresses too. What is guarded stays guarded, because another start may need it."""

    addresses: tuple[Address, ...]
    reject: bool = True  # False: drop, on a kernel that cannot reject
    table: str = "filter"

    def wanted(self, installed: Installed, layout: Layout) -> tuple[Rule, ...]:
        """Return the rules that guard these addresses and those guarded before, in one order for all starts."""
        return guard_rules(in_order((*self.addresses, *guarded_addresses(installed))), layout, reject=self.reject)

    def undo(self, previous: Installed, _layout: Layout) -> Replace:
        """Return the opposite change."""
        return Replace(self.table, previous)


class SetRedirects(Value):
    """Change the redirects of some endpoints, and leave the others."""

    add: tuple[tuple[Redirect, str], ...] = ()  # with the comment; each replaces its endpoint's redirect
    remove: tuple[Redirect, ...] = ()
    forwarded: bool | None = None  # whether what comes from bridges is redirected too; None leaves that as it is
    table: str = "nat"

    def wanted(self, installed: Installed, layout: Layout) -> tuple[Rule, ...]:
        """Return the rules of all redirects.

        An app relies on a redirect with the comment of a start. A sidecar may change where it leads, not its comment.
        """
        wanted = {at.endpoint: (at, by) for at, by in redirects_of(installed).items() if at not in self.remove}
        for redirect, comment in self.add:
            _, previous = wanted.pop(redirect.endpoint, (None, comment))  # the new one comes last
            wanted[redirect.endpoint] = redirect, COMMENT if previous == COMMENT else comment
        forwarded = is_forwarded(installed, layout) if self.forwarded is None else self.forwarded
        return nat_rules(dict(wanted.values()), layout, forwarded=forwarded)

    def undo(self, previous: Installed, layout: Layout) -> SetRedirects | None:
        """Return the opposite change, None if these rules were installed already."""
        before = redirects_of(previous)
        forwarded = is_forwarded(previous, layout)
        if all(before.get(redirect) == comment for redirect, comment in self.add) and forwarded >= bool(self.forwarded):
            return None
        ends = {redirect.endpoint for redirect, _ in self.add}
        replaced = tuple((redirect, comment) for redirect, comment in before.items() if redirect.endpoint in ends)
        return SetRedirects(replaced, tuple(redirect for redirect, _ in self.add), forwarded)


Change = Replace | AddGuard | SetRedirects


def in_order(addresses: Iterable[Address]) -> tuple[Address, ...]:
    """Return these addresses without duplicates, in the order of all guards."""
    return tuple(sorted(set(addresses), key=lambda address: (address.version, int(address))))
