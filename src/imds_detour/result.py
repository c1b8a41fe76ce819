"""What a start works on, read from settings and network namespace, and what it did, as values."""

from __future__ import annotations

from imds_detour.config.presets import GUARDED_ADDRESSES
from imds_detour.errors import DetourError
from imds_detour.firewall.change import in_order
from imds_detour.firewall.rules import Redirect
from imds_detour.system import namespaces
from imds_detour.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from imds_detour.config.services import Service
    from imds_detour.config.settings import Settings
    from imds_detour.discovery.mock import Mock
    from imds_detour.discovery.probe import Identity
    from imds_detour.endpoint import Address

BY_VARIABLES = "endpoint variables"
"""The name that MOCK_BACKEND=env has in place of a firewall's."""


class Environment(Value):
    """The network namespace that this process is in."""

    versions: tuple[int, ...]  # its IP versions: 4, and perhaps 6
    services: tuple[Service, ...]  # the services to redirect
    addresses: tuple[Address, ...]  # the metadata addresses of all of them, over these IP versions
    guarded: tuple[Address, ...]  # the metadata addresses to guard, over all IP versions of the kernel
    host: bool  # whether it may be the host's own, which is left as it was
    forwarded: bool  # whether to redirect what comes from bridges in it, too

    def require_no_metadata(self, name: str, addresses: Iterable[Address]) -> None:
        """Raise DetourError if a mock's address is a metadata address: asking there could reach the real service."""
        for address in addresses:
            if address in self.addresses:
                reason = "which MOCK_ENDPOINTS redirects: the redirect would point to itself"
                remedy = "take that address out of MOCK_ENDPOINTS, or look at who answers for the mock's name"
            elif address in self.guarded:
                reason = "which is a metadata address"
                remedy = "give the mock another address, or set MOCK_GUARD=chosen to guard only those of MOCK_ENDPOINTS"
            else:
                continue
            raise DetourError("lookup", f"{name} is at {address}, {reason}", remedy)


def inspect(settings: Settings, *, host: bool = False, forwarded: bool = False) -> Environment:
    """Look at this network namespace. Nothing is changed."""
    if not host and namespaces.is_host_netns(namespaces.read_namespace_info()):
        from imds_detour.advice.access import host_namespace  # noqa: PLC0415  (only a start that fails needs it)

        raise host_namespace()
    versions = namespaces.ip_versions()
    addresses: list[Address] = []
    for service in settings.services:
        available = [at.address for at in service.preset.endpoints if at.address.version in versions]
        if not available:
            reason = f"{service.preset.name} is at an IPv6 address, and there is no IPv6 in this network namespace"
            raise DetourError("settings", reason, "enable IPv6 on the network, or take it out of MOCK_ENDPOINTS")
        addresses += available
    distinct = tuple(dict.fromkeys(addresses))
    return Environment(versions, settings.services, distinct, guarded_addresses(settings), host, forwarded)


def guarded_addresses(settings: Settings) -> tuple[Address, ...]:
    """Return the addresses to guard, over all IP versions of the kernel."""
    if settings.guard == "off":
        return ()
    kernel = namespaces.kernel_versions()
    addresses = {at.address for service in settings.services for at in service.preset.endpoints}
    if settings.guard == "on":
        addresses |= GUARDED_ADDRESSES
    return in_order(address for address in addresses if address.version in kernel)


class Target(Value):
    """A service's mock over one IP version, and the redirect that leads to it."""

    service: Service  # the service
    mock: Mock  # its mock
    redirect: Redirect  # from the service's endpoint to the mock's


class Redirected(Value):
    """What a start has done."""

    targets: tuple[Target, ...]  # where each service leads, in the user's order
    backend: str  # the firewall's name
    reason: str  # why this firewall was chosen
    # the mocks that answered at the metadata addresses, in the same order; empty without a probe
    identities: tuple[Identity, ...]

    def facts(self) -> dict[str, str | None]:
        """Return the keys of the JSON event ``ready``."""
        return {
            "endpoint": _listed(target.redirect.endpoint for target in self.targets),
            "mock": _listed(target.mock.name for target in self.targets),
            "address": _listed(target.mock.endpoint for target in self.targets),
            "backend": self.backend,
            "verified": _listed(self.identities) or None,
        }

    def line(self, *, with_reason: bool = False) -> str:
        """Return one line for people, with the reason for the firewall if asked."""
        by_name: dict[str, list[Redirect]] = {}
        for target in self.targets:
            by_name.setdefault(target.mock.name, []).append(target.redirect)
        arrows = []
        for name, redirects in by_name.items():
            addresses = _listed(redirect.mock for redirect in redirects)
            mock = addresses if name == str(redirects[0].mock.address) else f"{name} ({addresses})"
            arrows.append(f"{_listed(redirect.endpoint for redirect in redirects)} -> {mock}")
        proof = f"verified {_listed(self.identities)}" if self.identities else "not verified (MOCK_PROBE=off)"
        backend = f"{self.backend} ({self.reason})" if with_reason else self.backend
        return f"{', '.join(arrows)}, {backend}, {proof}"


def targets_of(service: Service, mocks: Sequence[Mock]) -> list[Target]:
    """Return where a service leads."""
    endpoints = {endpoint.address.version: endpoint for endpoint in service.preset.endpoints}
    return [Target(service, mock, Redirect(endpoints[mock.endpoint.address.version], mock.endpoint)) for mock in mocks]


def host_names(targets: Iterable[Target]) -> dict[Address, tuple[str, ...]]:
    """Return the host names that SDKs use, by address: those of each service belong to its first target."""
    names: dict[Address, tuple[str, ...]] = {}
    services = set()
    for target in targets:
        preset, address = target.service.preset, target.redirect.endpoint.address
        if preset.names and preset.name not in services:
            services.add(preset.name)
            names[address] = (*names.get(address, ()), *preset.names)
    return names


def _listed(items: Iterable[object]) -> str:
    return ", ".join(dict.fromkeys(map(str, items)))
