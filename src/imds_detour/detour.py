"""The way through, step by step: guard, find the mock, redirect, verify, give up NET_ADMIN. What fails is undone."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imds_detour import backends, capabilities, discovery, namespaces, routes, rules, verification
from imds_detour.errors import DetourError
from imds_detour.probe import Question

if TYPE_CHECKING:
    from imds_detour.backends import Firewall
    from imds_detour.endpoints import Address, Endpoint
    from imds_detour.probe import Identity
    from imds_detour.report import Report
    from imds_detour.rules import Redirect, Rule
    from imds_detour.settings import Settings

LOCK_PATIENCE = 4.0
"""Seconds to wait for other writers of the firewall, once for their lock and once for those that take none: both
together are less than what the legacy helper has for one answer. An iptables command takes some milliseconds."""


@dataclass(frozen=True, slots=True)
class Detour:
    """What has been done, and stands.

    Attributes:
        mock: its name, as the user wrote it.
        redirects: one for each IP version over which the mock answers.
        backend: the firewall's name.
        because: why this firewall.
        verified: who answers at the metadata address; None when nobody was asked.

    """

    mock: str
    redirects: tuple[Redirect, ...]
    backend: str
    because: str
    verified: Identity | None

    def facts(self) -> dict[str, str | None]:
        """Return what a person or a program wants to know of it, as text."""
        return {
            "endpoint": ", ".join(str(redirect.endpoint) for redirect in self.redirects),
            "mock": self.mock,
            "address": ", ".join(str(redirect.mock) for redirect in self.redirects),
            "backend": self.backend,
            "verified": str(self.verified) if self.verified else None,
        }


def take(chosen: Settings, report: Report, *, host: bool = False) -> Detour:
    """Do everything that comes before the app.

    ``host`` is the user's word that it is the machine's own network namespace that shall be redirected.

    Raises:
        DetourError: when a step fails; what had been done is undone by then.

    """
    if not host and namespaces.is_the_hosts():
        raise DetourError(
            "namespace",
            "this is the host's own network namespace: a redirect here would hold for the whole machine",
            "run it in a container with a network of its own, or `imds-detourctl init --host` if you mean it",
        )
    (preset,) = chosen.presets
    versions = routes.ip_versions()
    endpoints: dict[int, Endpoint] = {
        at.address.version: at for at in preset.endpoints if at.address.version in versions
    }
    path = chosen.path or preset.path
    questions: dict[int, Question] = {
        version: Question(endpoint.host, path, word=chosen.path is None) for version, endpoint in endpoints.items()
    }
    firewall = backends.start(chosen.backend, versions)
    with ExitStack() as always, ExitStack() as undo:
        always.callback(firewall.close)
        guarded = [endpoint.address for endpoint in endpoints.values()] if chosen.guard else []
        _guard(firewall, guarded, undo, report)
        if guarded:
            report.step(f"guard: whatever goes to {' or '.join(map(str, guarded))} is refused from here on")
        mocks = discovery.find(chosen, questions, report)
        redirects = tuple(rules.Redirect(endpoints[mock.endpoint.address.version], mock.endpoint) for mock in mocks)
        for redirect in redirects:
            _route(redirect, undo, report)
        _install(firewall, "nat", rules.redirects(redirects, firewall.layout), undo, report)
        verified: Identity | None = None
        for mock, redirect in zip(mocks, redirects, strict=True):
            report.step(f"redirect: {redirect.endpoint} -> {redirect.mock}, {firewall.name}")
            if mock.identity is not None:
                question = questions[mock.endpoint.address.version]
                verified = verification.verify(redirect, mock.identity, question, firewall, report)
                report.step(f"verified: {verified} answers at {redirect.endpoint}, by our rule")
        if not chosen.keep_net_admin:
            _give_up_net_admin(report)
        undo.pop_all()
    if redirects[0].endpoint != endpoints[4]:
        state = "closed" if guarded else "as it was"
        report.warning(f"{mocks[0].name} answers over IPv6 only: {endpoints[4].address} stays {state}")
    return Detour(mocks[0].name, redirects, firewall.name, firewall.because, verified)


def _route(redirect: Redirect, undo: ExitStack, report: Report) -> None:
    if route := routes.needed(redirect.endpoint.address, redirect.mock.address):
        undo.callback(routes.remove, route)
        routes.add(route)
        report.step(f"route: {route.to} over lo with source {route.source}; there was none that leads to the mock")


def _guard(firewall: Firewall, addresses: list[Address], undo: ExitStack, report: Report) -> None:
    try:
        _install(firewall, "filter", rules.guard(addresses, firewall.layout), undo, report)
    except DetourError as refusal:
        # It may be REJECT alone that this kernel or image has not; if it is more, this fails as well.
        try:
            _install(firewall, "filter", rules.guard(addresses, firewall.layout, reject=False), undo, report)
        except DetourError:
            raise refusal from None
        report.warning(f"the guard drops instead of rejecting, so that SDKs wait for a timeout: {refusal.reason}")


def _install(firewall: Firewall, table: str, wanted: tuple[Rule, ...], undo: ExitStack, report: Report) -> None:
    """Make these our rules in a table; should a later step fail, what they took the place of comes back."""
    before = firewall.apply(table, wanted, report.deadline.within(LOCK_PATIENCE))
    if before != wanted:
        undo.callback(_put_back, firewall, table, before, report)


def _put_back(firewall: Firewall, table: str, before: tuple[Rule, ...], report: Report) -> None:
    try:
        if table == "filter" and any(found.rule and found.rule.table == "nat" for found in firewall.installed()):
            return  # another start in this namespace has succeeded meanwhile: its app lives behind this guard too
        firewall.apply(table, before, LOCK_PATIENCE)
    except DetourError as error:
        # The guard, which came first, is what stands when nothing can be taken out: closed, not open.
        report.warning(f"our firewall rules could not be taken out: {error.reason}")


def _give_up_net_admin(report: Report) -> None:
    if not capabilities.within_reach(capabilities.NET_ADMIN):
        return
    from imds_detour import privileges  # noqa: PLC0415  (ctypes, 5 ms that MOCK_KEEP_NET_ADMIN=1 does not pay)

    if privileges.drop_net_admin():
        report.warning("NET_ADMIN given up by no_new_privs, for want of SETPCAP: set-uid programs have no effect")
    report.step("NET_ADMIN is given up")
