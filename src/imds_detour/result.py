"""What there is to work on, where each service leads, and what has been done, as values."""

from __future__ import annotations

from imds_detour.system import etc_hosts
from imds_detour.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from imds_detour.config.services import Service
    from imds_detour.discovery.mock import Mock
    from imds_detour.discovery.probe import Identity
    from imds_detour.endpoint import Address
    from imds_detour.firewall.rules import Redirect


BY_VARIABLES = "endpoint variables"
"""What MOCK_BACKEND=env has in a firewall's place."""


class Environment(Value):
    """What there is to work on in this network namespace.

    Attributes:
        versions: its IP versions, 4 and perhaps 6.
        services: what is to be redirected.
        addresses: the metadata addresses of all of them, over these IP versions.

    """

    versions: tuple[int, ...]
    services: tuple[Service, ...]
    addresses: tuple[Address, ...]


class Target(Value):
    """One service, and where it leads now.

    Attributes:
        service: whose metadata addresses.
        mocks: where its mock answers, one for each IP version.
        redirects: the same as rules have it, in the same order.

    """

    service: Service
    mocks: tuple[Mock, ...]
    redirects: tuple[Redirect, ...]


def host_lines(targets: Sequence[Target]) -> list[etc_hosts.Line]:
    """Return what /etc/hosts must say for the SDKs that go by name."""
    lines = (etc_hosts.Line(one.redirects[0].endpoint.address, one.service.preset.names) for one in targets)
    return [line for line in lines if line.names]


class Redirected(Value):
    """What has been done, and stands.

    Attributes:
        targets: the services, in the user's order.
        backend: the firewall's name.
        reason: why this firewall.
        verified: who answers at each metadata address, in the same order; empty when nobody was asked.

    """

    targets: tuple[Target, ...]
    backend: str
    reason: str
    verified: tuple[Identity, ...]

    def facts(self) -> dict[str, str | None]:
        """Return what a person or a program wants to know of it, as text."""
        redirects = [redirect for target in self.targets for redirect in target.redirects]
        return {
            "endpoint": _listed(redirect.endpoint for redirect in redirects),
            "mock": _listed(mock.name for target in self.targets for mock in target.mocks),
            "address": _listed(redirect.mock for redirect in redirects),
            "backend": self.backend,
            "verified": _listed(self.verified) or None,
        }

    def __str__(self) -> str:
        return self.line()

    def line(self, *, why: bool = False) -> str:
        """Return the same as a line for people, ``why`` with the reason for this firewall."""
        ways: dict[str, list[Redirect]] = {}
        for target in self.targets:
            ways.setdefault(target.mocks[0].name, []).extend(target.redirects)
        led = []
        for name, redirects in ways.items():
            at = _listed(redirect.mock for redirect in redirects)
            where = at if name == str(redirects[0].mock.address) else f"{name} ({at})"
            led.append(f"{_listed(redirect.endpoint for redirect in redirects)} -> {where}")
        proof = f"verified {_listed(self.verified)}" if self.verified else "not verified (MOCK_PROBE=off)"
        backend = f"{self.backend} ({self.reason})" if why else self.backend
        return f"{', '.join(led)}, {backend}, {proof}"


def _listed(items: Iterable[object]) -> str:
    return ", ".join(dict.fromkeys(map(str, items)))
