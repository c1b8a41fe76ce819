"""Install the guard: refuse what goes to the metadata addresses, in each firewall that has a part of it."""

from __future__ import annotations

from imds_detour.discovery.dns import resolv_conf
from imds_detour.errors import DetourError
from imds_detour.firewall.change import AddGuard
from imds_detour.firewall.lock import LOCK_TIMEOUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from imds_detour.deadline import Deadline
    from imds_detour.endpoint import Address
    from imds_detour.firewall.base import Firewall
    from imds_detour.firewall.select import FirewallSelector
    from imds_detour.redirect import Transaction

    Guards = tuple[tuple[Firewall, AddGuard], ...]


def confirm_guards(guards: Iterable[tuple[Firewall, AddGuard]], deadline: Deadline) -> None:
    """Read the guard back, and install again what has no effect; DetourError if that fails."""
    for firewall, change in guards:
        firewall.apply(change, deadline.within(LOCK_TIMEOUT))


def begin_guard(selector: FirewallSelector, addresses: Sequence[Address]) -> None:
    """Let the helpers of legacy iptables guard as soon as they have loaded. install_guards() waits for the result."""
    if own := _of(selector.versions, addresses):
        selector.begin(AddGuard(own))


def install_early_guard(transaction: Transaction, selector: FirewallSelector, addresses: Sequence[Address]) -> Guards:
    """Install and return the part of the guard that is the same whichever firewall redirects, if there is one.

    If nftables refuses it, nftables counts as unusable, and a helper of legacy iptables guards in its place.
    """
    if not (part := selector.early_guard(versions_of(addresses))):
        return ()
    firewall, versions = part
    try:
        return ((firewall, _install_guard(transaction, firewall, _of(versions, addresses))),)
    except DetourError as error:
        transaction.log.step(f"nftables does not guard IPv6: {error.reason}")
        selector.refuse_nft(error)
        return ()


def install_guards(
    transaction: Transaction,
    parts: Iterable[tuple[Firewall, tuple[int, ...]]],
    addresses: Sequence[Address],
    early: Guards = (),
) -> Guards:
    """Refuse everything that goes to these addresses from now on, and return the guard's part of each firewall.

    ``parts`` are the firewalls with the IP versions that each guards. What is in ``early`` is installed already.
    """
    if not addresses:
        return ()
    log = transaction.log
    guards = []
    for firewall, versions in parts:
        wanted = _of(versions, addresses)
        installed = next((change for of, change in early if of is firewall and change.addresses == wanted), None)
        guards.append((firewall, installed or _install_guard(transaction, firewall, wanted)))
    if early:  # this process and the helper may have waited for each other since a part of it was read back
        confirm_guards(guards, transaction.deadline)
    rules = sum(len(change.wanted((), firewall.layout)) for firewall, change in guards)
    log.step(f"rule: filter has {rules} for the guard; `imds-detourctl plan` shows them")
    log.step(f"guard: everything that goes to {' or '.join(map(str, addresses))} is refused from now on")
    if server := resolv_conf.find_server(addresses, resolv_conf.read()):
        log.warning(
            f"{server} is this container's DNS server too, and the guard closes it: give it another, in Compose"
            " `dns: [1.1.1.1]`, or set MOCK_GUARD=off"
        )
    return tuple(guards)


def versions_of(addresses: Iterable[Address]) -> tuple[int, ...]:
    """Return the IP versions of these addresses."""
    return tuple(dict.fromkeys(address.version for address in addresses))


def _of(versions: Iterable[int], addresses: Iterable[Address]) -> tuple[Address, ...]:
    return tuple(address for address in addresses if address.version in versions)


def _install_guard(transaction: Transaction, firewall: Firewall, addresses: tuple[Address, ...]) -> AddGuard:
    change = AddGuard(addresses)
    try:
        transaction.change(firewall, change)
    except DetourError as refusal:
        if refusal.step == "lock":
            raise  # another program writes all the time; other rules would not help
        # The kernel or the image may lack REJECT alone; if it lacks more, this fails too.
        change = AddGuard(addresses, reject=False)
        try:
            transaction.change(firewall, change)
        except DetourError:
            raise refusal from None
        transaction.log.warning(
            f"the guard drops instead of rejecting, so that SDKs wait for a timeout: {refusal.reason}"
        )
    return change
