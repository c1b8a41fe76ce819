"""The sidecar's state, as a value for HTTP and `imds-detourctl status`."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ServiceState:
    """One metadata service."""

    name: str  # the preset's name
    endpoints: tuple[str, ...]  # its metadata endpoints, as text
    mock: str  # its mock: name and address with a redirect, the name alone without
    open: bool  # whether the redirect is installed and verified; otherwise it is closed by the guard, if there is one
    text: str  # the mock's last answer, or why there is no redirect
    since: float  # seconds since the epoch when it was opened or closed
    probed: float  # seconds since the epoch of the last probe; 0 before the first


@dataclass(frozen=True, slots=True)
class State:
    """The sidecar."""

    services: tuple[ServiceState, ...]  # in the user's order
    backend: str  # the firewall's name
    beat: float  # seconds since the epoch of the last step
    started: float  # seconds since the epoch
    counts: dict[str, int] = field(default_factory=dict)  # counters, by name
    guarded: bool = True  # whether metadata addresses that are not redirected are closed

    @property
    def ready(self) -> bool:
        """Whether every service's redirect is installed and verified."""
        return all(service.open for service in self.services)
