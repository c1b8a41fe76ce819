"""MOCK_ENDPOINTS: the metadata services to redirect, and the mock of each."""

from __future__ import annotations

from ipaddress import IPv6Address

from imds_detour.config.mock_address import IPV4_MAPPED, BadValueError, MockAddress, parse_host_port, parse_mock_address
from imds_detour.config.presets import PRESETS, Preset, Proof
from imds_detour.config.variables import known
from imds_detour.endpoint import Endpoint
from imds_detour.text import DIGITS, is_path, quoted
from imds_detour.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Service(Value):
    """A metadata service and its mock."""

    preset: Preset  # the kind of service; a new one for ``IP:PORT``
    mock: MockAddress  # the address of its mock
    proof: Proof  # what to ask the mock


NUMERIC = DIGITS | {".", ":"}
"""Every address contains some of these characters, and no name of a preset does."""


def parse_services(text: str, default: Callable[[], MockAddress]) -> tuple[Service, ...]:
    """Return the services in a list such as ``aws,ecs=creds:80,192.0.2.7:80=other``, without duplicates.

    ``default`` returns the mock for an entry without ``=``. An entry that is not valid, or two mocks for one endpoint,
    are a BadValueError.
    """
    services = tuple(dict.fromkeys(_service(entry.strip(), default) for entry in text.split(",")))
    holders: dict[Endpoint, Service] = {}
    for service in services:
        for endpoint in service.preset.endpoints:
            holder = holders.setdefault(endpoint, service)
            if holder.mock != service.mock:
                both = f"{holder.preset.name} and {service.preset.name}"
                raise BadValueError(f"{both} are both at {endpoint}: give them the same mock")
    return services


def with_proof_path(service: Service, path: str | None, environ: Mapping[str, str]) -> Service:
    """Return the service with other paths to prove it by: ``path``, or those that its SDKs read from variables too."""
    proof = service.proof
    if path:
        return service.replace(proof=proof.replace(paths=(path,), member="", flavor=None, accept="200"))
    preset = service.preset
    first, last = (
        [path for name in names if (path := _path(environ.get(name, ""), preset))]
        for names in (preset.path_variables, preset.metadata_variables)
    )
    return service.replace(proof=proof.replace(paths=tuple(dict.fromkeys((*first, *proof.paths, *last)))))


def _path(text: str, preset: Preset) -> str:
    """Return the path in a path or in a URL of this service, empty if it is neither."""
    host, slash, path = text.removeprefix("http://").partition("/")
    if text.startswith("http://") and host in (name for at in preset.endpoints for name in (at.host, str(at))):
        text = slash + path
    return text if is_path(text) else ""


def _service(entry: str, default: Callable[[], MockAddress]) -> Service:
    name, equals, mock = entry.partition("=")
    preset = PRESETS.get(known(name, PRESETS) or "") or _preset_for(name)
    # MOCK_PORT belongs to MOCK_HOSTNAME.
    return Service(preset, parse_mock_address(mock, None, "MOCK_ENDPOINTS") if equals else default(), preset.proof)


def _preset_for(text: str) -> Preset:
    if not text:
        raise BadValueError("an empty entry")
    if NUMERIC.isdisjoint(text):
        raise BadValueError(f"{quoted(text)} is none of them")
    address, port = parse_host_port(text)
    if isinstance(address, str) or port is None:
        raise BadValueError(f"{quoted(text)} is neither a preset nor an address with a port")
    reasons = (
        (isinstance(address, IPv6Address) and address.ipv4_mapped is not None, IPV4_MAPPED),
        (address.is_loopback, "it is a loopback address, where this container's DNS server may be"),
        (address.is_unspecified or address.is_multicast, "no service can have it"),
    )
    if reason := next((reason for applies, reason in reasons if applies), ""):
        raise BadValueError(f"{text}: {reason}")
    endpoint = Endpoint(address, port)
    return Preset(str(endpoint), (endpoint,), Proof(("/",), accept="any"))
