"""Which metadata services to redirect, each to which mock: MOCK_ENDPOINTS as values."""

from __future__ import annotations

from ipaddress import IPv6Address

from imds_detour.config.mock_address import IN_CLOTHES, BadValueError, MockAddress, parse_host_port, parse_mock_address
from imds_detour.config.presets import PRESETS, Preset, Proof
from imds_detour.endpoint import Endpoint
from imds_detour.text import DIGITS, is_path, quoted
from imds_detour.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from imds_detour.endpoint import Address


class Service(Value):
    """A metadata service and the mock that shall answer for it.

    Attributes:
        preset: what kind of service it is; for ``ip:port`` one made up for it.
        mock: where its mock is.
        proof: what to ask it.

    """

    preset: Preset
    mock: MockAddress
    proof: Proof


NUMERIC = DIGITS | {".", ":"}
"""What an address has, and no preset's name."""
MOCKS_PORT = 80
"""The port of a mock that stands in MOCK_ENDPOINTS without one: MOCK_PORT goes with MOCK_HOSTNAME."""


def parse(text: str, default: Callable[[], MockAddress]) -> tuple[Service, ...]:
    """Return the services in a list such as ``aws,ecs=creds:80,192.0.2.7:80=other``, each once.

    Args:
        text: the list.
        default: says where the mock of an entry is that names none; called when there is such an entry.

    Raises:
        BadValueError: when an entry makes no sense, or two claim one endpoint for different mocks.

    """
    services = tuple(dict.fromkeys(_service(entry.strip(), default) for entry in text.split(",")))
    holders: dict[Endpoint, Service] = {}
    for service in services:
        for endpoint in service.preset.endpoints:
            holder = holders.setdefault(endpoint, service)
            if holder.mock != service.mock:
                raise BadValueError(
                    f"{holder.preset.name} and {service.preset.name} are both at {endpoint}: give them the same mock"
                )
    return services


def asked(service: Service, path: str | None, environ: Mapping[str, str]) -> Service:
    """Return the service with another question: a path of the user's, or else the one that SDKs will GET here."""
    proof = service.proof
    if path:
        return service.replace(proof=proof.replace(path=path, answer="text", member="", flavor=None))
    told = environ.get(service.preset.path, "") if service.preset.path else ""  # an entry may have an empty name
    return service.replace(proof=proof.replace(path=told)) if is_path(told) else service


def _service(entry: str, default: Callable[[], MockAddress]) -> Service:
    what, equals, mock = entry.partition("=")
    preset = PRESETS.get(what) or _made_up(what)
    return Service(preset, parse_mock_address(mock, MOCKS_PORT) if equals else default(), preset.proof)


def _made_up(what: str) -> Preset:
    """Return a preset for an address and port that none of ours is for."""
    if not what:
        raise BadValueError("an empty entry")
    if NUMERIC.isdisjoint(what):
        raise BadValueError(f"{quoted(what)} is none of them")
    address, port = parse_host_port(what)
    if isinstance(address, str) or port is None:
        raise BadValueError(f"{quoted(what)} is neither a preset nor an address with a port")
    if why := _unfit(address):
        raise BadValueError(f"{what}: {why}")
    endpoint = Endpoint(address, port)
    return Preset(str(endpoint), (endpoint,), Proof("/", answer="reply"))


def _unfit(address: Address) -> str:
    """Say why an address cannot be redirected, and closed to all else; empty when it can."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return IN_CLOTHES
    if address.is_loopback:
        return "a loopback address is this container's own: its DNS may be there"
    if address.is_unspecified or address.is_multicast:
        return "no service can be at such an address"
    return ""
