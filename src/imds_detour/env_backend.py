"""MOCK_BACKEND=env: no NET_ADMIN to be had, so SDKs are led to the mock by the variables that some of them honour.

As on Fargate (not tried there). For aws, ecs, eks, gcp and azure: other presets have no such variable. The mock is
asked directly; there is no redirect, and no guard either: a client that does not listen reaches whoever answers at the
metadata address. So it is never chosen but by the user.
"""

from __future__ import annotations

from imds_detour import redirect
from imds_detour.discovery.dns.cache import ResolverCache
from imds_detour.discovery.mock import find
from imds_detour.errors import DetourError
from imds_detour.result import BY_VARIABLES, Redirected

TYPE_CHECKING = False
if TYPE_CHECKING:
    from imds_detour.config.services import Service
    from imds_detour.config.settings import Settings
    from imds_detour.log import Log


def take(chosen: Settings, log: Log) -> Redirected:
    """Find the mocks and prove that they answer; environment.py says what leads SDKs there.

    Raises:
        DetourError: when a service has no such variable, two want the same one, or a mock is not there.

    """
    _require(chosen.services)
    environment = redirect.inspect(chosen, host=True)  # nothing of the namespace is changed, whosever it is
    names = ResolverCache((service.mock.host for service in environment.services), log)
    targets = []
    for service in environment.services:
        mocks = find(service, environment.versions, names, log, probe=chosen.probe)[:1]
        if service.preset.loopback_only and not mocks[0].endpoint.address.is_loopback:
            raise DetourError(
                "settings",
                f"MOCK_BACKEND=env: SDKs follow {service.preset.variables[0][0]} to a loopback address only, not to"
                f" {mocks[0]}",
                "run that mock in the app's network namespace, or redirect: with NET_ADMIN, or by the sidecar",
            )
        targets.append(redirect.target(service, mocks, environment))
    if not chosen.keep_net_admin:
        redirect.give_up_net_admin(log)
    verified = tuple(mock.identity for one in targets for mock in one.mocks if mock.identity)
    return Redirected(tuple(targets), BY_VARIABLES, "MOCK_BACKEND=env", verified)


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
