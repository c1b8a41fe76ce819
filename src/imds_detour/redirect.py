"""Redirect the metadata addresses: guard, find the mocks, redirect, verify, drop NET_ADMIN. A failure is undone."""

from __future__ import annotations

from functools import partial

from imds_detour import verify
from imds_detour.discovery.dns.cache import start_cache
from imds_detour.discovery.mock import Search
from imds_detour.errors import DetourError
from imds_detour.firewall.change import SetRedirects
from imds_detour.firewall.lock import LOCK_TIMEOUT, SETUP, namespace_lock
from imds_detour.firewall.rules import COMMENT
from imds_detour.firewall.select import RefusedError
from imds_detour.guard import begin_guard, confirm_guards, install_early_guard, install_guards, versions_of
from imds_detour.result import Redirected, host_names, targets_of
from imds_detour.system import capabilities, routes
from imds_detour.verify import NotByRuleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Self

    from imds_detour.config.services import Service
    from imds_detour.config.settings import Settings
    from imds_detour.deadline import Deadline
    from imds_detour.discovery.dns.cache import ResolverCache
    from imds_detour.discovery.probe import Identity
    from imds_detour.endpoint import Endpoint
    from imds_detour.firewall.base import Firewall
    from imds_detour.firewall.change import AddGuard, Change
    from imds_detour.firewall.select import FirewallSelector
    from imds_detour.log import Log
    from imds_detour.result import Environment, Target

SETUP_TIMEOUT = 12.0
"""Seconds to wait for another start's redirect to be verified or undone, which takes at most verify.TIMEOUT."""
UNDO_TIMEOUT = 0.1
"""The same for an undo after the deadline. The helper has longer than that to answer."""


def setup(
    settings: Settings, environment: Environment, selector: FirewallSelector, deadline: Deadline, log: Log
) -> Redirected:
    """Do everything that comes before the app. Raises DetourError when a step fails; the steps before it are undone.

    The guard stays after a failure, because another start in this namespace may need it. On a host it is undone.
    """
    selector.start()  # forks, so before the cache starts threads
    cache = start_cache((service.mock.host for service in environment.services), deadline.clock, log.step)
    if not settings.keep_net_admin:
        from imds_detour.process import privileges  # noqa: F401, PLC0415  (loads ctypes while helpers and DNS work)

    def redirect_and_verify() -> tuple[Identity, ...]:
        # Without another start in between: it must not rely on a redirect that may be undone here.
        with namespace_lock(SETUP, deadline.within(SETUP_TIMEOUT)), Transaction(deadline, log) as transaction:
            install_redirects(transaction, firewall, targets, forwarded=environment.forwarded)
            confirm_guards(guards, deadline)
            probed = [target for target in targets if target.mock.identity is not None]
            identities = verify.verify(probed, firewall, deadline, log)
            confirm_guards(guards, deadline)
            for target, identity in zip(probed, identities, strict=True):
                log.step(f"verified: {identity} answers at {target.redirect.endpoint}, by the rule")
            if not settings.keep_net_admin:
                drop_net_admin(log)
            transaction.keep()
        return identities

    versions = versions_of(environment.guarded)
    if not environment.forwarded:  # with bridges, and so on a host, nftables comes first
        begin_guard(selector, environment.guarded)
    with Transaction(deadline, log, undoes=environment.host) as guarding:
        early = install_early_guard(guarding, selector, environment.guarded)  # while the helper loads
        firewall, reason = selector.choose(nft_first=environment.forwarded)
        guards = install_guards(guarding, selector.guards(firewall, versions, log), environment.guarded, early)
        targets = _find_targets(settings, environment, cache, deadline, log)
        try:
            firewall = selector.extend(firewall, versions_of(target.mock.endpoint.address for target in targets))
            identities = redirect_and_verify()
        except (NotByRuleError, RefusedError) as error:
            # nftables can come before another program's redirect, and may have IPv6 where legacy iptables has not.
            if not selector.can_use_nftables_instead_of(firewall):
                raise
            log.step(f"nftables is used instead: {error.reason}")
            firewall, reason = selector.nft, error.reason
            guards = install_guards(guarding, selector.guards(firewall, versions, log), environment.guarded)
            identities = redirect_and_verify()
        guarding.keep()
    for service in environment.services:
        _warn_about_ipv4(service, targets, environment, log)
    return Redirected(tuple(targets), firewall.name, reason, identities)


def _find_targets(
    settings: Settings, environment: Environment, cache: ResolverCache, deadline: Deadline, log: Log
) -> list[Target]:
    targets: list[Target] = []
    for service in environment.services:
        search = Search(service, environment, cache, log, probe=settings.probe)
        targets += targets_of(service, search.wait(deadline))
    return targets


class Transaction:
    """Changes of firewalls, routes and /etc/hosts. Leaving it undoes them in reverse order, unless they are kept.

    One that never ``undoes`` is for the guard: another start in this namespace may rely on it at once.
    """

    __slots__ = ("_undo", "_undoes", "deadline", "log")

    def __init__(self, deadline: Deadline, log: Log, *, undoes: bool = True) -> None:
        self.deadline, self.log = deadline, log
        self._undoes = undoes
        self._undo: list[Callable[[], None]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        while self._undo:
            try:
                self._undo.pop()()
            except (DetourError, OSError, MemoryError) as error:
                # The guard was installed first, so it is what remains: closed, not open.
                self.log.warning(f"a change could not be undone: {str(error) or type(error).__name__}")

    def on_undo(self, function: Callable[[], None]) -> None:
        """Call this function if the changes are undone, before those given earlier. Its failure is a warning."""
        if self._undoes:
            self._undo.append(function)

    def keep(self) -> None:
        """Keep all changes."""
        self._undo.clear()

    def change(self, firewall: Firewall, change: AddGuard | SetRedirects) -> None:
        """Change the rules of a table."""
        for rule in change.wanted((), firewall.layout) if change.table == "nat" else ():  # the guard's hardly change
            self.log.step(f"rule: {rule.table} {rule.spec}")
        previous = firewall.apply(change, self.deadline.within(LOCK_TIMEOUT))
        if opposite := change.undo(previous, firewall.layout):
            self.on_undo(partial(self._undo_change, firewall, opposite))

    def _undo_change(self, firewall: Firewall, change: Change) -> None:
        self.log.step(f"undo: the rules in table {change.table} become what they were before")
        if change.table == "filter" and firewall.installed("nat"):
            return  # another program has redirected meanwhile, and needs this guard
        try:
            firewall.apply(change, max(UNDO_TIMEOUT, self.deadline.within(LOCK_TIMEOUT)))
        except DetourError as error:
            reason = f"imds-detour's rules in table {change.table} remain: {error.reason}"
            raise DetourError(error.step, reason, error.remedy) from None


def install_redirects(
    transaction: Transaction,
    firewall: Firewall,
    targets: Sequence[Target],
    comment: str = COMMENT,
    *,
    forwarded: bool = False,
) -> None:
    """Install routes, redirects and host names, ``forwarded`` for what comes from bridges too. Other redirects stay."""
    log = transaction.log
    redirects = tuple(dict.fromkeys(target.redirect for target in targets))
    mocks: dict[Endpoint, Endpoint] = {}
    for redirect in redirects:
        if mocks.setdefault(redirect.endpoint, redirect.mock) != redirect.mock:
            raise DetourError(
                "probe",
                f"{redirect.endpoint} has two mocks, at {mocks[redirect.endpoint]} and at {redirect.mock}",
                "let one mock answer for all that is asked at that address",
            )
        if route := routes.required_route(redirect.endpoint.address, redirect.mock.address):
            transaction.on_undo(partial(routes.undo_add, route, routes.add(route)))
            log.step(f"route: {route.to} over lo with source {route.source}; there was none that leads to the mock")
    for redirect in redirects if forwarded else ():
        if redirect.mock.address.is_loopback and not routes.routes_loopback():
            log.warning(
                f"containers behind a bridge cannot reach the mock at {redirect.mock}: let it listen on 0.0.0.0, and"
                " set MOCK_HOSTNAME to an address of this machine, such as the bridge's"
            )
    change = SetRedirects(tuple((redirect, comment) for redirect in redirects), forwarded=forwarded or None)
    transaction.change(firewall, change)
    for redirect in redirects:
        log.step(f"redirect: {redirect.endpoint} -> {redirect.mock}, {firewall.name}")
    if names := host_names(targets):
        from imds_detour.system import etc_hosts  # noqa: PLC0415  (most services have no host name)

        if put_back := etc_hosts.add(names):
            transaction.on_undo(put_back)
        for address, aliases in names.items():
            log.step(f"{etc_hosts.PATH}: {' '.join(aliases)} is {address}")


def drop_net_admin(log: Log) -> None:
    """Drop NET_ADMIN, so that the app cannot get it back. Raises DetourError when the app could still get it."""
    if not capabilities.within_reach(capabilities.NET_ADMIN):
        return
    from imds_detour.process import privileges  # noqa: PLC0415  (setup() has loaded it)

    if privileges.drop_net_admin():
        log.warning("NET_ADMIN is dropped by no_new_privs, without SETPCAP: set-uid programs have no effect")
    log.step("NET_ADMIN is dropped")


def _warn_about_ipv4(service: Service, targets: Iterable[Target], environment: Environment, log: Log) -> None:
    """Warn when a mock answers over IPv6 alone: most SDKs ask over IPv4 unless told otherwise."""
    first = service.preset.endpoints[0]
    own = [target for target in targets if target.service == service]
    if first.address in environment.addresses and first not in [target.redirect.endpoint for target in own]:
        state = "closed" if first.address in environment.guarded else "as it was"
        log.warning(f"{own[0].mock.name} answers over IPv6 only: {first.address} stays {state}")
