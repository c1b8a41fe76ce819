"""Why no mock is found, and what to change: for a start whose time is over, and for doctor."""

from __future__ import annotations

import errno
import os
from contextlib import suppress

from imds_detour.advice.access import NO_ROUTE
from imds_detour.deadline import Deadline
from imds_detour.discovery.dns.lookup import Lookup
from imds_detour.discovery.http import AbsentError
from imds_detour.errors import DetourError, NoAddressError, NotYetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from imds_detour.config.services import Service

SPELLING_TIMEOUT = 1.0
"""Seconds to look the other spellings of a name up."""
HOST_GATEWAY = (
    "Docker on Linux gives this name on request only: in Compose `extra_hosts:"
    ' ["host.docker.internal:host-gateway"]`, with docker run `--add-host host.docker.internal:host-gateway`'
)
NO_DNS_SERVER = (
    "put the container on a network with a DNS server: a Compose or user-defined network (`docker network create`) has"
    " one, Docker's default bridge has none for names of containers; or in Compose `dns: [ADDRESS]`"
)


def no_mock(error: NotYetError, service: Service, limit: float) -> DetourError:
    """Return the error of a start that found no mock of a service in ``limit`` seconds, by its last attempt's."""
    remedy = no_address(error, service) if error.step == "lookup" else _no_answer(error, service)
    reason = f"no mock after {limit:g} s: {error.reason}"
    return DetourError(error.step, reason, f"{remedy}; MOCK_TIMEOUT is how long to wait")


def no_address(error: DetourError, service: Service) -> str:
    """Return what to do when the look-up of a mock's name fails so."""
    if error.remedy:
        return error.remedy
    # Docker's server answers SERVFAIL for a name that it does not know, when it cannot ask another server.
    answered = isinstance(error, NoAddressError) or " answers " in error.reason
    return _not_found(service) if answered else NO_DNS_SERVER


def _not_found(service: Service) -> str:
    """Return what to do when DNS servers do not know the name of a service's mock."""
    host = str(service.mock.host)
    if host.lower() == "host.docker.internal":
        return HOST_GATEWAY
    if other := other_spelling(host):
        return f"correct {setting_of(service)}: {other} exists, did you mean that?"
    return (
        f"start it; or correct {setting_of(service)}, or name the mock's service so (in Compose"
        f" `services: {{{host}: ...}}`) and put both on a common network (`networks:`)"
    )


def other_spelling(host: str) -> str:
    """Return the name with - for _, or with _ for -, if it has an address; else an empty string."""
    deadline = Deadline(SPELLING_TIMEOUT)
    for other in sorted({host.replace("-", "_"), host.replace("_", "-")} - {host}):
        with suppress(DetourError):
            return Lookup(other).attempt(deadline).name
    return ""


def nothing_listens(service: Service) -> str:
    """Return what to do when connections to a service's mock are refused."""
    host = service.mock.host
    if host == "localhost" or (not isinstance(host, str) and host.is_loopback):
        return (
            f"{host} is this container itself: if the app's own script starts the mock, run `imds-detourctl init` after"
            f" it; for a mock in another container, {setting_of(service)} is the name of its service"
        )
    if service.mock.setting == "MOCK_ENDPOINTS":
        return f"start the mock on 0.0.0.0, or correct the port of {setting_of(service)} (80 without one)"
    port = "set MOCK_PORT, which is 80 by default" if service.mock.default_port else "correct MOCK_PORT"
    return f'start the mock on 0.0.0.0, or {port} (amazon-ec2-metadata-mock: `MOCK_PORT: "1338"`)'


def silent(service: Service) -> str:
    """Return what to do when a service's mock gives no answer that a mock gives."""
    return f"start it, look for a firewall on its side, or correct its {_port(service)}"


def _port(service: Service) -> str:
    return "port in MOCK_PORT" if service.mock.setting == "MOCK_HOSTNAME" else f"port of {setting_of(service)}"


def setting_of(service: Service) -> str:
    """Return the setting that names a service's mock, as a reader finds it."""
    if service.mock.setting == "MOCK_ENDPOINTS":
        return f"`{service.preset.name}=` in MOCK_ENDPOINTS"
    return service.mock.setting


def _no_answer(error: NotYetError, service: Service) -> str:
    """Return what to do when a mock has an address and does not answer there as one."""
    if any(os.strerror(number).lower() in error.reason for number in (errno.ENETUNREACH, errno.EHOSTUNREACH)):
        return NO_ROUTE
    if isinstance(error, AbsentError):
        return nothing_listens(service)
    if ": it answers " in error.reason:
        other = "if it is another server, correct its " + _port(service)
        return f"look at the mock's log; {other}; if another path is answered with 200, let MOCK_PROBE name it"
    return silent(service)
