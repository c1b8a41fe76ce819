"""Remove everything that imds-detour has installed, and nothing else: for `remove`, and for the end of a sidecar."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from imds_detour.ctl.installed import usable
from imds_detour.endpoint import Address
from imds_detour.errors import DetourError, NotInKernelError, error_text
from imds_detour.firewall.base import Firewall
from imds_detour.firewall.change import Change, Replace, SetRedirects
from imds_detour.firewall.iptables.preflight import existing_tables, readable_versions
from imds_detour.firewall.lock import LOCK_TIMEOUT, SETUP, namespace_lock
from imds_detour.firewall.rules import SIDECAR_COMMENT, redirects_of
from imds_detour.firewall.select import FirewallSelector
from imds_detour.system import etc_hosts, routes


@dataclass(slots=True)
class Removed:
    """The result of a cleanup."""

    rules: Counter[str] = field(default_factory=Counter)  # number of removed rules, by the firewall's name
    names: bool = False  # whether lines in /etc/hosts were removed
    routes: int = 0  # number of removed routes
    failures: list[DetourError] = field(default_factory=list)  # the reasons why something remains

    @contextmanager
    def noting_failures(self) -> Iterator[None]:
        """Note that this block fails, instead of raising its DetourError."""
        try:
            yield
        except DetourError as error:
            self.failures.append(error)

    def require_all(self) -> None:
        """Raise a DetourError with all reasons and remedies if something remains."""
        if self.failures:
            reasons = dict.fromkeys(error.reason for error in self.failures)
            remedies = dict.fromkeys(error.remedy for error in self.failures if error.remedy)
            raise DetourError(self.failures[0].step, "; ".join(reasons), "; ".join(remedies))


def may_hold_rules(name: str, refusal: DetourError) -> bool:
    """Return whether a firewall that cannot be used may have rules. This needs no capability, and changes nothing."""
    if name == "nftables":
        return not isinstance(refusal, NotInKernelError)
    tables = [existing_tables(version) for version in (4, 6)]  # None if they cannot be read
    return any(names is None or not names.isdisjoint(("filter", "nat")) for names in tables)


def clean_up(firewalls: Collection[Firewall], refused: Mapping[str, DetourError]) -> Removed:
    """Remove redirects, guard, host names and routes, in this order: a partial removal leaves the addresses closed.

    ``refused`` are the firewalls that cannot be used, with the reasons. The guard stays in all firewalls if redirects
    may remain in one, because nftables guards IPv6 for legacy iptables. Other things are removed after a failure too.
    """
    removed = Removed()
    for table in ("nat", "filter"):
        for firewall in firewalls:
            with removed.noting_failures():
                removed.rules[firewall.name] += len(firewall.apply(Replace(table), LOCK_TIMEOUT))
        if removed.failures or any(may_hold_rules(name, refusal) for name, refusal in refused.items()):
            break
    _remove_others(removed, frozenset())
    return removed


def end_sidecar(firewall: Firewall, guards: Iterable[tuple[Firewall, Change]], *, host: bool) -> Removed:
    """Remove the redirects that sidecars have installed, and the host names and routes that no other redirect needs.

    The guard stays, because an app in this namespace may need it. On a host it is removed with the last redirect.
    """
    removed = Removed()
    selecting = FirewallSelector("auto", readable_versions())  # a start may use the other firewall
    with namespace_lock(SETUP, LOCK_TIMEOUT), removed.noting_failures(), selecting as selector:
        installed = redirects_of(entry.rule for entry in firewall.installed("nat") if entry.rule)
        own = tuple(redirect for redirect, comment in installed.items() if comment == SIDECAR_COMMENT)
        firewall.apply(SetRedirects(remove=own), LOCK_TIMEOUT)
        working, refused = usable(selector)
        rules = [entry.rule for part in working for entry in part.installed("nat") if entry.rule]
        keep = frozenset(redirect.endpoint.address for redirect in redirects_of(rules))
        for guard, _ in guards if host and not keep else ():
            guard.apply(Replace("filter"), LOCK_TIMEOUT)
        if not any(may_hold_rules(name, refusal) for name, refusal in refused.items()):
            _remove_others(removed, keep)
    return removed


def _remove_others(removed: Removed, keep: Collection[Address]) -> None:
    """Remove host names and routes, except those of addresses that are still redirected."""
    with removed.noting_failures():
        removed.names = _remove_names(keep)
    with removed.noting_failures():
        for route in routes.installed_routes():
            if route.to not in keep:
                with removed.noting_failures():
                    routes.remove(route)
                    removed.routes += 1


def _remove_names(keep: Collection[Address]) -> bool:
    """Remove the marked lines of /etc/hosts, except those of some addresses, and return whether there were any."""
    path = etc_hosts.PATH
    try:
        etc_hosts.read()
    except FileNotFoundError:
        return False
    except OSError as error:
        reason = f"cannot read {path}, which may have lines of imds-detour: {error_text(error)}"
        raise DetourError("hosts", reason, f"make {path} readable and try again") from None
    try:
        return etc_hosts.rewrite(lambda text: etc_hosts.without_marked(text, keep))
    except OSError as error:
        raise etc_hosts.unwritable(error) from None
