"""The way through, step by step: guard, find the mocks, redirect, verify, give up NET_ADMIN. What fails is undone."""

from __future__ import annotations

from contextlib import ExitStack

from imds_detour import verify
from imds_detour.discovery.dns import resolv_conf
from imds_detour.discovery.dns.cache import Names
from imds_detour.discovery.mock import find
from imds_detour.errors import DetourError
from imds_detour.firewall import rules, select
from imds_detour.result import Detour, Ground, Passage, host_lines
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
    from imds_detour.log import Report

LOCK_PATIENCE = 4.0
"""Seconds to wait for other writers of the firewall, where the deadline leaves as much. An iptables command takes some
milliseconds."""
UNDO_PATIENCE = 0.1
"""The same when something is taken out again behind the deadline: less than the helper then has for its answer."""


def take(chosen: Settings, report: Report, *, host: bool = False, candidates: Candidates | None = None) -> Detour:
    """Do everything that comes before the app.

    ``host`` is the user's word that it is the machine's own network namespace that shall be redirected; ``candidates``
    are the firewalls where they are getting ready already.

    Raises:
        DetourError: when a step fails; what had been done is undone by then.

    """
    ground = survey(chosen, host=host)
    candidates = candidates or select.Candidates(
        chosen.backend, select.forking(ground.versions), report.deadline.remaining
    )
    names = Names((service.mock.host for service in ground.services), report)
    if not chosen.keep_net_admin:
        from imds_detour.process import privileges  # noqa: F401, PLC0415  (2 ms of ctypes, now that others are at work)
    firewall = candidates.first_that_works()
    with ExitStack() as always, ExitStack() as undo:
        always.callback(firewall.close)
        put_up_guard(firewall, ground.addresses if chosen.guard else (), undo, report)
        passages = tuple(
            passage(service, find(service, ground.versions, names, report, probe=chosen.probe), ground)
            for service in ground.services
        )
        lead(firewall, passages, undo, report)
        verified = prove(firewall, passages, report)
        if not chosen.keep_net_admin:
            give_up_net_admin(report)
        undo.pop_all()
    for one in passages:
        _warn_of_the_rest(one, ground, report, closed=chosen.guard)
    return Detour(passages, firewall.name, firewall.because, verified)


def survey(chosen: Settings, *, host: bool = False) -> Ground:
    """Look at the network namespace that we are in; nothing is changed.

    Raises:
        DetourError: when it is the host's own and ``host`` does not say that it is meant, or a service has no place in
            it.

    """
    if not host and namespaces.is_the_hosts():
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
    return Ground(versions, chosen.services, tuple(dict.fromkeys(addresses)))


def put_up_guard(firewall: Firewall, addresses: Sequence[Address], undo: ExitStack, report: Report) -> None:
    """Refuse whatever goes to these addresses, and to no others, from here on.

    Raises:
        DetourError: when the firewall does not take the rules.

    """
    try:
        _install(firewall, "filter", rules.guard(addresses, firewall.layout), undo, report)
    except DetourError as refusal:
        if refusal.step == "lock":
            raise  # by somebody who writes all the time, and not for the rules' sake
        # It may be REJECT alone that this kernel or image has not; if it is more, this fails as well.
        try:
            _install(firewall, "filter", rules.guard(addresses, firewall.layout, reject=False), undo, report)
        except DetourError:
            raise refusal from None
        report.warning(f"the guard drops instead of rejecting, so that SDKs wait for a timeout: {refusal.reason}")
    if addresses:
        report.step(f"guard: whatever goes to {' or '.join(map(str, addresses))} is refused from here on")
    if server := resolv_conf.server_among(addresses, resolv_conf.read()):
        report.warning(
            f"{server} is this container's DNS server too, and the guard closes it: give it another, in Compose"
            " `dns: [1.1.1.1]`, or set MOCK_GUARD=off"
        )


def passage(service: Service, mocks: tuple[Mock, ...], ground: Ground) -> Passage:
    """Return where a service leads, now that its mock is found.

    Raises:
        DetourError: when the mock is at an address that is to be redirected itself.

    """
    at = {endpoint.address.version: endpoint for endpoint in service.preset.endpoints}
    for mock in mocks:
        if mock.endpoint.address in ground.addresses:
            raise DetourError(
                "lookup",
                f"{mock} is at an address that MOCK_ENDPOINTS redirects, so the redirect would lead back to it",
                "take that address out of MOCK_ENDPOINTS, or look at who answers for the mock's name",
            )
    redirects = (rules.Redirect(at[mock.endpoint.address.version], mock.endpoint) for mock in mocks)
    return Passage(service, mocks, tuple(redirects))


def lead(firewall: Firewall, passages: tuple[Passage, ...], undo: ExitStack, report: Report) -> None:
    """Make routes, redirects and host names lead to the mocks.

    Raises:
        DetourError: when the kernel or a file does not take them, or two mocks answer for one endpoint.

    """
    redirects = dict.fromkeys(redirect for one in passages for redirect in one.redirects)
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
            report.step(f"route: {route.to} over lo with source {route.source}; there was none that leads to the mock")
    _install(firewall, "nat", rules.redirects(redirects, firewall.layout), undo, report)
    for redirect in redirects:
        report.step(f"redirect: {redirect.endpoint} -> {redirect.mock}, {firewall.name}")
    etc_hosts.add(host_lines(passages), undo, report.step)


def prove(firewall: Firewall, passages: tuple[Passage, ...], report: Report) -> tuple[Identity, ...]:
    """Return who answers at each metadata address, once it is its mock, by our rule; nobody where none was asked.

    Raises:
        DetourError: when it is somebody else or nobody, or the answer did not come by our rule.

    """
    proven = []
    for one in passages:
        for mock, redirect in zip(one.mocks, one.redirects, strict=True):
            if mock.identity is not None:
                identity = verify.verify(redirect, mock.identity, mock.question, firewall, report)
                report.step(f"verified: {identity} answers at {redirect.endpoint}, by our rule")
                proven.append(identity)
    return tuple(proven)


def give_up_net_admin(report: Report) -> None:
    """Take NET_ADMIN out of reach of the app.

    Raises:
        DetourError: when it would still be within reach.

    """
    if not capabilities.within_reach(capabilities.NET_ADMIN):
        return
    from imds_detour.process import privileges  # noqa: PLC0415  (take() has loaded it, while others were at work)

    if privileges.drop_net_admin():
        report.warning("NET_ADMIN given up by no_new_privs, for want of SETPCAP: set-uid programs have no effect")
    report.step("NET_ADMIN is given up")


def _install(firewall: Firewall, table: str, wanted: tuple[Rule, ...], undo: ExitStack, report: Report) -> None:
    """Make these our rules in a table; should a later step fail, what they took the place of comes back."""
    for rule in wanted:
        report.step(f"rule: {rule.table} {rule.spec}")
    before = firewall.apply(table, wanted, report.deadline.within(LOCK_PATIENCE))
    if before != wanted:
        undo.callback(_put_back, firewall, table, before, report)


def _put_back(firewall: Firewall, table: str, before: tuple[Rule, ...], report: Report) -> None:
    report.step(f"undo: our rules in table {table} give way to what was there")
    try:
        if table == "filter" and any(found.rule and found.rule.table == "nat" for found in firewall.installed()):
            return  # another start in this namespace has succeeded meanwhile: its app lives behind this guard too
        firewall.apply(table, before, max(UNDO_PATIENCE, report.deadline.within(LOCK_PATIENCE)))
    except (DetourError, OSError, MemoryError) as error:
        # The guard, which came first, is what stands when nothing can be taken out: closed, not open.
        report.warning(f"our firewall rules could not be taken out: {str(error) or type(error).__name__}")


def _warn_of_the_rest(one: Passage, ground: Ground, report: Report, *, closed: bool) -> None:
    """Say so when a mock answers over IPv6 alone: most SDKs ask over IPv4 unless told otherwise."""
    first = one.service.preset.endpoints[0]
    if first.address in ground.addresses and first not in [redirect.endpoint for redirect in one.redirects]:
        state = "closed" if closed else "as it was"
        report.warning(f"{one.mocks[0].name} answers over IPv6 only: {first.address} stays {state}")
