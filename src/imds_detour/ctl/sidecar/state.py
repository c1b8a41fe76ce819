"""The sidecar's state: what it knows about each service, and the snapshot that its server answers from."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from imds_detour.config.services import Service
from imds_detour.endpoint import Address, Endpoint
from imds_detour.result import Target

FIRST_PAUSE = 0.1
"""Seconds between the first searches for a mock that does not answer."""
NOT_PROBED = "not probed yet"


@dataclass(slots=True, eq=False)
class ServiceStatus:
    """What the sidecar knows about one service. Only the sidecar loop changes it."""

    service: Service  # the service
    targets: tuple[Target, ...] = ()  # its mocks and redirects; empty while its mock does not answer
    due: float = 0.0  # when to probe it, or to search for its mock, by time.monotonic()
    search_due: float = 0.0  # when to search for a mock that has moved, at the earliest
    # whether the mock is known to be elsewhere, or over another IP version too, and is not found there yet
    moved: bool = False
    pause: float = FIRST_PAUSE  # seconds until the next search
    failed: bool = False  # whether the latest probe failed; a second failure closes the redirect
    text: str = NOT_PROBED  # the mock's last answer, or why there is no redirect
    # The wall clock may be set at any time, so ages are differences of time.monotonic().
    since: float = field(default_factory=time.monotonic)  # when the redirect was opened or closed
    probed: float | None = None  # when it was probed last

    @property
    def name(self) -> str:
        """The preset's name."""
        return self.service.preset.name

    @property
    def mock(self) -> str:
        """The mock's name and address with a redirect, its name alone without."""
        return ", ".join(str(target.mock) for target in self.targets) or str(self.service.mock.host)

    @property
    def open(self) -> bool:
        """Whether the redirect is installed and verified; otherwise the guard closes the address, if there is one."""
        return bool(self.targets)


@dataclass(frozen=True, slots=True)
class State:
    """A snapshot of the sidecar."""

    services: tuple[ServiceStatus, ...]  # copies, in the user's order
    backend: str  # the firewall's name
    beat: float  # when the sidecar loop was alive last, by time.monotonic()
    started: float  # when the sidecar was started, by time.monotonic()
    epoch: float = 0.0  # seconds since the epoch when time.monotonic() was 0, only to show times
    counts: dict[str, int] = field(default_factory=dict)  # counters, by name
    redirected: frozenset[Endpoint] = frozenset()  # by the rules in the kernel, also those of other starts
    guarded: Mapping[Address, int] = field(default_factory=dict)  # likewise, with the packets that were refused
    born: float = 0.0  # when the sidecar was started, in seconds since the epoch by the wall clock of then
    versions: tuple[int, ...] = (4, 6)  # the IP versions of the network namespace

    @property
    def ready(self) -> bool:
        """Whether every service's redirect is installed and verified."""
        return all(service.open for service in self.services)

    def endpoints(self, service: ServiceStatus) -> dict[Endpoint, str]:
        """Return whether a service's endpoints are redirected, closed or open; those that do not exist are left out."""
        states: dict[Endpoint, str] = {}
        for endpoint in service.service.preset.endpoints:
            if endpoint in self.redirected:
                states[endpoint] = "redirected"
            elif endpoint.address in self.guarded:
                states[endpoint] = "closed"
            elif endpoint.address.version in self.versions:
                states[endpoint] = "open"
        return states
