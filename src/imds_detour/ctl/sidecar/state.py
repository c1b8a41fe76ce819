"""What the sidecar knows, as a value: made by the one who follows, read by whoever asks."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ServiceState:
    """One metadata service.

    Attributes:
        name: the preset's name.
        endpoints: where SDKs look for it, as text.
        mock: where its mock is: by name and address when a redirect leads there, by name alone when none does.
        open: whether the redirect stands and was verified; else it is the guard's, where there is one.
        text: who answered last, or why there is no redirect.
        since: seconds since the epoch at which it came to be so.
        probed: seconds since the epoch of the last probe; 0 when there was none.

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
        beat: seconds since the epoch at which it last had a look at everything.
        started: seconds since the epoch.
        counts: how often it did what, by the name of what.
        guarded: whether what is not redirected is closed.

    """

    services: tuple[ServiceState, ...]
    backend: str
    beat: float
    started: float
    counts: dict[str, int] = field(default_factory=dict)
    guarded: bool = True

    @property
    def ready(self) -> bool:
        """Whether every service's redirect stands and was verified."""
        return all(service.open for service in self.services)
