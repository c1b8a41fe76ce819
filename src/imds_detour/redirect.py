"""The way through, step by step: guard, find the mocks, redirect, verify, give up NET_ADMIN. What fails is undone."""

from __future__ import annotations

from contextlib import ExitStack

from imds_detour import verify
from imds_detour.discovery.dns import resolv_conf
from imds_detour.discovery.dns.cache import ResolverCache
from imds_detour.discovery.mock import find
from imds_detour.errors import DetourError
from imds_detour.firewall import rules, select
from imds_detour.result import Environment, Redirected, Target, host_lines
from imds_detour.system import capabilities, etc_hosts, ip_versions, namespaces, routes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from imds_detour.config.services import Service
    from imds_detour.config.settings import Settings
    from imds_detour.discovery.mock import Mock
    from imds_detour.discovery.probe import Identity
    from imds_detour.endpoint import Address, Endpoint
    from imds_detour.firewall.base import Firewall
    from imds_detour.firewall.rules import Rule
    from imds_detour.firewall.select import Candidates
    from imds_detour.log import Log

LOCK_TIMEOUT = 4.0
"""Seconds to wait for other writers of the firewall, where the deadline leaves as much. An iptables command takes some
milliseconds."""
UNDO_TIMEOUT = 0.1
"""The same when something is taken out again behind the deadline: less than the helper then has for its answer."""


def take(chosen: Settings, log: Log, *, host: bool = False, candidates: Candidates | None = None) -> Redirected:
    """Do everything that comes before the app.

    ``host`` is the user's word that it is the machine's own network namespace that shall be redirected; ``candidates``
    are the firewalls where they are getting ready already.

    Raises:
        DetourError: when a step fails; what had been done is undone by then.

    """
    environment = inspect(chosen, host=host)
    candidates = candidates or select.Candidates(
        chosen.backend, select.forking(environment.versions), log.deadline.remaining
    )
    names = ResolverCache((service.mock.host for service in environment.services), log)
    if not chosen.keep_net_admin:
        from imds_detour.process import privileges  # noqa: F401, PLC0415  (2 ms of ctypes, now that others are at work)
    firewall = candidates.first_that_works()
    with ExitStack() as always, ExitStack() as undo:
        always.callback(firewall.close)
        install_guard(firewall, environment.addresses if chosen.guard else (), undo, log)
        targets = tuple(
            target(service, find(service, environment.versions, names, log, probe=chosen.probe), environment)
            for service in environment.services
        )
        install_redirects(firewall, targets, undo, log)
        verified = prove(firewall, targets, log)
        if not chosen.keep_net_admin:
            give_up_net_admin(log)
        undo.pop_all()
    for one in targets:
        _warn_of_the_rest(one, environment, log, closed=chosen.guard)
    return Redirected(targets, firewall.name, firewall.reason, verified)


def inspect(chosen: Settings, *, host: bool = False) -> Environment:
    """Look at the network namespace that we are in; nothing is changed.

    Raises:
        DetourError: when it is the host's own and ``host`` does not say that it is meant, or a service has no place in
            it.

    """
    if not host and namespaces.is_host_netns():
        raise DetourError(
            "namespace",
            "this is the host's own network namespace: a redirect here would hold for the whole machine",
            "run it in a container with a network of its own, or `imds-detourctl init --host` if you mean it",
        )
    versions = ip_versions.here()
    addresses: list[Address] = []
    for service in chosen.services:
        here = [at.address for at in service.preset.endpoints if at.address.version in versions]
        if not here:
            raise DetourError(
                "settings",
                f"{service.preset.name} is at an IPv6 address, and there is no IPv6 in this network namespace",
                "enable IPv6 on the network, or take it out of MOCK_ENDPOINTS",
            )
        addresses += here
    return Environment(versions, chosen.services, tuple(dict.fromkeys(addresses)))


def install_guard(firewall: Firewall, addresses: Sequence[Address], undo: ExitStack, log: Log) -> None:
    """Refuse whatever goes to these addresses, and to no others, from here on.

    Raises:
        DetourError: when the firewall does not take the rules.

    """
    try:
        _install(firewall, "filter", rules.guard(addresses, firewall.layout), undo, log)
    except DetourError as refusal:
        if refusal.step == "lock":
            raise  # by somebody who writes all the time, and not for the rules' sake
        # It may be REJECT alone that this kernel or image has not; if it is more, this fails as well.
        try:
            _install(firewall, "filter", rules.guard(addresses, firewall.layout, reject=False), undo, log)
        except DetourError:
            raise refusal from None
        log.warning(f"the guard drops instead of rejecting, so that SDKs wait for a timeout: {refusal.reason}")
    if addresses:
        log.step(f"guard: whatever goes to {' or '.join(map(str, addresses))} is refused from here on")
    if server := resolv_conf.server_among(addresses, resolv_conf.read()):
        log.warning(
            f"{server} is this container's DNS server too, and the guard closes it: give it another, in Compose"
            " `dns: [1.1.1.1]`, or set MOCK_GUARD=off"
        )


def target(service: Service, mocks: tuple[Mock, ...], environment: Environment) -> Target:
    """Return where a service leads, now that its mock is found.

    Raises:
        DetourError: when the mock is at an address that is to be redirected itself.

    """
    at = {endpoint.address.version: endpoint for endpoint in service.preset.endpoints}
    for mock in mocks:
        if mock.endpoint.address in environment.addresses:
            raise DetourError(
                "lookup",
                f"{mock} is at an address that MOCK_ENDPOINTS redirects, so the redirect would lead back to it",
                "take that address out of MOCK_ENDPOINTS, or look at who answers for the mock's name",
            )
    redirects = (rules.Redirect(at[mock.endpoint.address.version], mock.endpoint) for mock in mocks)
    return Target(service, mocks, tuple(redirects))


def install_redirects(firewall: Firewall, targets: tuple[Target, ...], undo: ExitStack, log: Log) -> None:
    """Make routes, redirects and host names lead to the mocks.

    Raises:
        DetourError: when the kernel or a file does not take them, or two mocks answer for one endpoint.

    """
    redirects = dict.fromkeys(redirect for one in targets for redirect in one.redirects)
    mocks: dict[Endpoint, Endpoint] = {}
    for redirect in redirects:
        if mocks.setdefault(redirect.endpoint, redirect.mock) != redirect.mock:
            raise DetourError(
                "probe",
                f"{redirect.endpoint} has two mocks, at {mocks[redirect.endpoint]} and at {redirect.mock}",
                "let one mock answer for all that is asked at that address",
            )
        if route := routes.needed(redirect.endpoint.address, redirect.mock.address):
            undo.callback(routes.put_back, route, routes.add(route))
            log.step(f"route: {route.to} over lo with source {route.source}; there was none that leads to the mock")
    _install(firewall, "nat", rules.redirects(redirects, firewall.layout), undo, log)
    for redirect in redirects:
        log.step(f"redirect: {redirect.endpoint} -> {redirect.mock}, {firewall.name}")
    etc_hosts.add(host_lines(targets), undo, log.step)


def prove(firewall: Firewall, targets: tuple[Target, ...], log: Log) -> tuple[Identity, ...]:
    """Return who answers at each metadata address, once it is its mock, by our rule; nobody where none was asked.

    Raises:
        DetourError: when it is somebody else or nobody, or the answer did not come by our rule.

    """
    proven = []
    for one in targets:
        for mock, redirect in zip(one.mocks, one.redirects, strict=True):
            if mock.identity is not None:
                identity = verify.verify(redirect, mock.identity, mock.question, firewall, log)
                log.step(f"verified: {identity} answers at {redirect.endpoint}, by our rule")
                proven.append(identity)
    return tuple(proven)


def give_up_net_admin(log: Log) -> None:
    """Take NET_ADMIN out of reach of the app.

    Raises:
        DetourError: when it would still be within reach.

    """
    if not capabilities.within_reach(capabilities.NET_ADMIN):
        return
    from imds_detour.process import privileges  # noqa: PLC0415  (take() has loaded it, while others were at work)

    if privileges.drop_net_admin():
        log.warning("NET_ADMIN given up by no_new_privs, for want of SETPCAP: set-uid programs have no effect")
    log.step("NET_ADMIN is given up")


def _install(firewall: Firewall, table: str, wanted: tuple[Rule, ...], undo: ExitStack, log: Log) -> None:
    """Make these our rules in a table; should a later step fail, what they took the place of comes back."""
    for rule in wanted:
        log.step(f"rule: {rule.table} {rule.spec}")
    before = firewall.apply(table, wanted, log.deadline.within(LOCK_TIMEOUT))
    if before != wanted:
        undo.callback(_put_back, firewall, table, before, log)


def _put_back(firewall: Firewall, table: str, before: tuple[Rule, ...], log: Log) -> None:
    log.step(f"undo: our rules in table {table} give way to what was there")
    try:
        if table == "filter" and any(found.rule and found.rule.table == "nat" for found in firewall.installed()):
            return  # another start in this namespace has succeeded meanwhile: its app lives behind this guard too
        firewall.apply(table, before, max(UNDO_TIMEOUT, log.deadline.within(LOCK_TIMEOUT)))
    except (DetourError, OSError, MemoryError) as error:
        # The guard, which came first, is what stands when nothing can be taken out: closed, not open.
        log.warning(f"our firewall rules could not be taken out: {str(error) or type(error).__name__}")


def _warn_of_the_rest(one: Target, environment: Environment, log: Log, *, closed: bool) -> None:
    """Say so when a mock answers over IPv6 alone: most SDKs ask over IPv4 unless told otherwise."""
    first = one.service.preset.endpoints[0]
    if first.address in environment.addresses and first not in [redirect.endpoint for redirect in one.redirects]:
        state = "closed" if closed else "as it was"
        log.warning(f"{one.mocks[0].name} answers over IPv6 only: {first.address} stays {state}")
