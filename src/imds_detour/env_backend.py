"""MOCK_BACKEND=env, without NET_ADMIN: environment variables lead the SDKs that follow them to the mock.

For the presets aws, ecs, eks, gcp and azure; the SDKs of the others have no such variable. The mock is asked directly.
There is no redirect and no guard: a client that ignores the variables reaches the real service, if there is one. So
only the user chooses it. It is for platforms such as Fargate (not tried there).
"""

from __future__ import annotations

import os

from imds_detour.discovery.dns.cache import start_cache
from imds_detour.discovery.mock import Search
from imds_detour.errors import DetourError
from imds_detour.redirect import drop_net_admin
from imds_detour.result import BY_VARIABLES, Environment, Redirected, Target, targets_of
from imds_detour.system.capabilities import NET_ADMIN, sets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from imds_detour.config.settings import Settings
    from imds_detour.deadline import Deadline
    from imds_detour.log import Log


def setup(settings: Settings, environment: Environment, deadline: Deadline, log: Log) -> Redirected:
    """Find the mocks, and see that they answer; DetourError if variables cannot lead to them, or one is not there."""
    users: dict[str, str] = {}
    for service in settings.services:
        name = service.preset.name
        if not service.preset.variables:
            reason = f"MOCK_BACKEND=env cannot lead SDKs to a mock of {name}: they have no variable for that"
            remedy = f"redirect: with NET_ADMIN, or by the sidecar; or take {name} out of MOCK_ENDPOINTS"
            raise DetourError("settings", reason, remedy)
        for variable, _ in service.preset.variables:
            if users.setdefault(variable, name) != name:
                reason = f"MOCK_BACKEND=env cannot serve {users[variable]} and {name} at once: both need {variable}"
                raise DetourError("settings", reason, "take one of them out of MOCK_ENDPOINTS")
    cache = start_cache((service.mock.host for service in environment.services), deadline.clock, log.step)
    targets: list[Target] = []
    for service in environment.services:
        search = Search(service, environment, cache, log, probe=settings.probe)
        mocks = search.wait(deadline, both=False)[:1]
        if service.preset.loopback_only and not mocks[0].endpoint.address.is_loopback:
            variable = service.preset.variables[0][0]
            reason = f"MOCK_BACKEND=env: SDKs follow {variable} to a loopback address only, not to {mocks[0]}"
            remedy = "run that mock in the app's network namespace, or redirect: with NET_ADMIN, or by the sidecar"
            raise DetourError("settings", reason, remedy)
        targets += targets_of(service, mocks)
    # An ordinary user has it in the bounding set alone, which only no_new_privs could keep from its programs.
    if not settings.keep_net_admin and (os.geteuid() == 0 or sets()["CapPrm"] & NET_ADMIN):
        drop_net_admin(log)
    identities = tuple(target.mock.identity for target in targets if target.mock.identity)
    return Redirected(tuple(targets), BY_VARIABLES, "MOCK_BACKEND=env", identities)
