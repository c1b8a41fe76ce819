"""Changes of the app's environment: variables that point SDKs at the mocks, and NO_PROXY."""

from __future__ import annotations

from imds_detour.result import BY_VARIABLES, Redirected
from imds_detour.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from imds_detour.config.presets import Preset
    from imds_detour.config.services import Service
    from imds_detour.config.settings import Settings
    from imds_detour.endpoint import Endpoint

AWS_ENDPOINT = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
AWS_DISABLED = "AWS_EC2_METADATA_DISABLED"
PROXIES = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "https_proxy", "HTTPS_PROXY")
"""curl reads the first, most clients the first two. gaxios (Google, Node) uses HTTPS_PROXY for every request."""
NO_PROXY = ("no_proxy", "NO_PROXY")
"""Some clients read the first only, some the second only, and others prefer one of them."""


class Exemption(Value):
    """Hosts that must be exempt from a proxy."""

    proxy: str  # variable that sets the proxy
    hosts: tuple[str, ...]  # hosts that are not exempt yet
    changes: Mapping[str, str]  # new values of NO_PROXY and no_proxy


def changes(
    settings: Settings, result: Redirected, environ: Mapping[str, str]
) -> tuple[dict[str, str | None], tuple[str, ...]]:
    """Return the app's new variables, None for a variable to unset, and warnings for the user."""
    by_variables = result.backend == BY_VARIABLES
    variables, warnings = _endpoint_variables(result) if by_variables else ({}, [])
    targets = ((target.service.preset, [target.mock.endpoint] if by_variables else []) for target in result.targets)
    exemption = proxy_exemption(environ, (host for preset, mocks in targets for host in hosts(preset, *mocks)))
    if exemption and settings.no_proxy:
        variables.update(exemption.changes)
        warnings.append(
            f"{exemption.proxy} is set: {', '.join(exemption.hosts)} added to NO_PROXY and no_proxy, or the proxy would"
            " get metadata requests (MOCK_NO_PROXY=keep leaves them unchanged)"
        )
    elif exemption:
        warnings.append(
            f"{exemption.proxy} is set and MOCK_NO_PROXY=keep: metadata requests go to the proxy, not to the mock"
        )
    if not by_variables:
        for service in dict.fromkeys(target.service for target in result.targets):
            own = [target.redirect.endpoint for target in result.targets if target.service == service]
            warnings += elsewhere(service, own, environ)
    presets = {target.service.preset.name for target in result.targets}
    if environ.get(AWS_DISABLED, "").lower() == "true" and "aws" in presets:
        warnings.append(f"{AWS_DISABLED}=true keeps AWS SDKs from asking at all: unset it for the app")
    return variables, tuple(warnings)


def elsewhere(service: Service, endpoints: Sequence[Endpoint], environ: Mapping[str, str]) -> Iterator[str]:
    """Yield a warning for each variable that leads SDKs neither to these endpoints of a service nor to its mock."""
    names = {*service.preset.names, *(at.host for at in endpoints)}
    own = {f"{service.mock.host}:{service.mock.port}", *names, *(f"{name}:{endpoints[0].port}" for name in names)}
    for name, _ in service.preset.variables:
        scheme, _, rest = environ.get(name, "").rpartition("://")
        host = rest.partition("/")[0].rpartition("@")[2].lower()  # without a path or password, which may be secret
        if host and host not in own:
            seen = f"{name} leads to {scheme or 'http'}://{host}"
            yield f"{seen}: SDKs that follow it ask there; remove it, unless it is meant"
    # botocore and the Java SDK: the endpoint's variable comes first, and the mode is in any case.
    endpoint, mode = AWS_ENDPOINT, f"{AWS_ENDPOINT}_MODE"
    ipv6 = environ.get(mode, "").lower() == "ipv6" and not environ.get(endpoint)
    if service.preset.name == "aws" and ipv6 and not any(at.address.version == 6 for at in endpoints):
        yield f"{mode}=IPv6: SDKs ask an IPv6 address, which is not redirected; remove {mode}"


def proxy_exemption(environ: Mapping[str, str], required: Iterable[str]) -> Exemption | None:
    """Return the exemption that these hosts need; None without a proxy, or if they are exempt already."""
    proxy = next((name for name in PROXIES if environ.get(name)), None)
    if proxy is None:
        return None
    required = tuple(dict.fromkeys(required))
    values, missing = {}, set()
    for name, other in (NO_PROXY, NO_PROXY[::-1]):
        entries = [entry.strip() for entry in environ.get(name, environ.get(other, "")).split(",") if entry.strip()]
        # Exact hosts, for boto ignores networks.
        lacking = [host for host in required if host not in entries and "*" not in entries]
        missing.update(lacking)
        if lacking:
            values[name] = ",".join((*entries, *lacking))
    return Exemption(proxy, tuple(host for host in required if host in missing), values) if values else None


def _endpoint_variables(result: Redirected) -> tuple[dict[str, str | None], list[str]]:
    """Return the variables that point SDKs at the mocks, None for one to unset, and which SDKs ignore them."""
    variables: dict[str, str | None] = {}
    for target in result.targets:
        preset, mock = target.service.preset, target.mock.endpoint
        for name in preset.path_variables:
            variables[name] = None  # most SDKs prefer the path to the variable with the URL
        for name, template in preset.variables:
            variables[name] = template.format(url=f"http://{mock}", host=mock, path=target.service.proof.path)
    ignored_by = dict.fromkeys(target.service.preset.ignored_by for target in result.targets)
    known = f" (known: {'; '.join(filter(None, ignored_by))})" if any(ignored_by) else ""
    names = ", ".join(name for name, value in variables.items() if value is not None)
    warning = (
        f"MOCK_BACKEND=env: only {names} point to the mock; SDKs that ignore them{known} reach any service at the"
        " metadata address, because there is no redirect and no guard"
    )
    return variables, [warning]


def hosts(preset: Preset, *more: Endpoint) -> Iterator[str]:
    """Yield the hosts in the SDKs' URLs: names and addresses. boto compares IPv6 in brackets, others without."""
    for endpoint in (*preset.endpoints, *more):
        yield from (str(endpoint.address), endpoint.host)
    yield from preset.names
