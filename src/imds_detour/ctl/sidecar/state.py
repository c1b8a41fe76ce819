"""The sidecar's state, as a value for HTTP and `imds-detourctl status`."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ServiceState:
    """One metadata service.

    Attributes:
        name: the preset's name.
        endpoints: its metadata endpoints, as text.
        mock: its mock: name and address with a redirect, the name alone without.
        open: whether the redirect is installed and verified; otherwise it is closed by the guard, if there is one.
        text: the mock's last answer, or why there is no redirect.
        since: seconds since the epoch when it was opened or closed.
        probed: seconds since the epoch of the last probe; 0 before the first.

    """

    name: str
    endpoints: tuple[str, ...]
    mock: str
    open: bool
    text: str
    since: float
    probed: float


@dataclass(frozen=True, slots=True)
class State:
    """The sidecar.

    Attributes:
        services: in the user's order.
        backend: the firewall's name.
        beat: seconds since the epoch of the last step.
        started: seconds since the epoch.
        counts: counters, by name.
        guarded: whether metadata addresses that are not redirected are closed.

    """

    services: tuple[ServiceState, ...]
    backend: str
    beat: float
    started: float
    counts: dict[str, int] = field(default_factory=dict)
    guarded: bool = True

    @property
    def ready(self) -> bool:
        """Whether every service's redirect is installed and verified."""
        return all(service.open for service in self.services)
