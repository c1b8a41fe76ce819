"""MOCK_BACKEND=env: no NET_ADMIN to be had, so SDKs are led to the mock by the variables that some of them honour.

As on Fargate (not tried there). For aws, ecs, eks, gcp and azure: other presets have no such variable. The mock is
asked directly; there is no redirect, and no guard either: a client that does not listen reaches whoever answers at the
metadata address. So it is never chosen but by the user.
"""

from __future__ import annotations

from imds_detour import redirect
from imds_detour.discovery.dns.cache import Names
from imds_detour.discovery.mock import find
from imds_detour.errors import DetourError
from imds_detour.result import BY_VARIABLES, Detour

TYPE_CHECKING = False
if TYPE_CHECKING:
    from imds_detour.config.services import Service
    from imds_detour.config.settings import Settings
    from imds_detour.log import Report


def take(chosen: Settings, report: Report) -> Detour:
    """Find the mocks and prove that they answer; environment.py says what leads SDKs there.

    Raises:
        DetourError: when a service has no such variable, two want the same one, or a mock is not there.

    """
    _require(chosen.services)
    ground = redirect.survey(chosen, host=True)  # nothing of the namespace is changed, whosever it is
    names = Names((service.mock.host for service in ground.services), report)
    passages = []
    for service in ground.services:
        mocks = find(service, ground.versions, names, report, probe=chosen.probe)[:1]
        if service.preset.loopback and not mocks[0].endpoint.address.is_loopback:
            raise DetourError(
                "settings",
                f"MOCK_BACKEND=env: SDKs follow {service.preset.variables[0][0]} to a loopback address only, not to"
                f" {mocks[0]}",
                "run that mock in the app's network namespace, or redirect: with NET_ADMIN, or by the sidecar",
            )
        passages.append(redirect.passage(service, mocks, ground))
    if not chosen.keep_net_admin:
        redirect.give_up_net_admin(report)
    verified = tuple(mock.identity for one in passages for mock in one.mocks if mock.identity)
    return Detour(tuple(passages), BY_VARIABLES, "MOCK_BACKEND=env", verified)


def _require(services: tuple[Service, ...]) -> None:
    taken: dict[str, str] = {}
    for service in services:
        name = service.preset.name
        if not service.preset.variables:
            raise DetourError(
                "settings",
                f"MOCK_BACKEND=env cannot lead anyone to a mock of {name}: its SDKs have no variable for that",
                f"redirect: with NET_ADMIN, or by the sidecar; or take {name} out of MOCK_ENDPOINTS",
            )
        for variable, _ in service.preset.variables:
            if taken.setdefault(variable, name) != name:
                raise DetourError(
                    "settings",
                    f"MOCK_BACKEND=env cannot serve {taken[variable]} and {name} at once: both need {variable}",
                    "take one of them out of MOCK_ENDPOINTS",
                )
