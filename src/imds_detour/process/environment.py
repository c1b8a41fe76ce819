"""The changes of the app's environment: variables that lead SDKs to the mocks, and NO_PROXY."""

from __future__ import annotations

from imds_detour.result import BY_VARIABLES
from imds_detour.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from imds_detour.config.settings import Settings
    from imds_detour.result import Redirected

AWS_DISABLED = "AWS_EC2_METADATA_DISABLED"
PROXIES = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "https_proxy", "HTTPS_PROXY")
"""curl reads the first, most clients the first two; gaxios (Google's for Node) uses HTTPS_PROXY for every request."""
NO_PROXY = ("no_proxy", "NO_PROXY")
"""Some clients read only one of them. If both are set, clients differ in which one counts."""


class Exemption(Value):
    """What keeps metadata requests away from a proxy."""

    proxy: str  # the variable that sets the proxy
    hosts: tuple[str, ...]  # the hosts that are not exempt from it
    changes: Mapping[str, str]  # the new values of NO_PROXY and no_proxy


def changes(
    settings: Settings, result: Redirected, environ: Mapping[str, str]
) -> tuple[dict[str, str | None], tuple[str, ...]]:
    """Return the variables to set for the app, None for one to unset, and warnings for the user."""
    variables = _endpoint_variables(result)
    warnings = [_limits(result, variables)] if variables else []
    exemption = proxy_exemption(environ, _hosts(result))
    if exemption and settings.no_proxy:
        variables.update(exemption.changes)
        warnings.append(
            f"{exemption.proxy} is set: {', '.join(exemption.hosts)} added to NO_PROXY and no_proxy, or the proxy would"
            " get metadata requests (MOCK_NO_PROXY=keep leaves them alone)"
        )
    elif exemption:
        warnings.append(
            f"{exemption.proxy} is set and MOCK_NO_PROXY=keep: metadata requests go to the proxy, not to the mock"
        )
    if environ.get(AWS_DISABLED, "").lower() == "true" and any(
        target.service.preset.name == "aws" for target in result.targets
    ):
        warnings.append(f"{AWS_DISABLED}=true keeps AWS SDKs from asking at all: unset it for the app")
    return variables, tuple(warnings)


def proxy_exemption(environ: Mapping[str, str], hosts: Iterable[str]) -> Exemption | None:
    """Return what exempts these hosts from a proxy, or None if there is no proxy or they are exempt.

    Every client understands exact entries only: boto ignores networks, and wants IPv6 addresses in brackets, where
    others want them without. The values of the two variables are kept.
    """
    proxy = next((name for name in PROXIES if environ.get(name)), None)
    if proxy is None:
        return None
    wanted = tuple(dict.fromkeys(hosts))
    values, missing = {}, set()
    for name, other in (NO_PROXY, NO_PROXY[::-1]):
        present = environ[name] if name in environ else environ.get(other, "")
        entries = [entry.strip() for entry in present.split(",") if entry.strip()]
        lacking = [host for host in wanted if host not in entries and "*" not in entries]
        missing.update(lacking)
        if lacking:
            values[name] = ",".join((*entries, *lacking))
    return Exemption(proxy, tuple(host for host in wanted if host in missing), values) if values else None


def _endpoint_variables(result: Redirected) -> dict[str, str | None]:
    """Return the variables that lead SDKs to the mocks; none with a redirect. None unsets one."""
    if result.backend != BY_VARIABLES:
        return {}
    # Most SDKs prefer the variable with the path to the one with the whole URL, so it is unset.
    unset: dict[str, str | None] = {
        target.service.preset.path_variable: None for target in result.targets if target.service.preset.path_variable
    }
    return unset | {
        name: template.format(
            url=f"http://{target.mock.endpoint}", host=str(target.mock.endpoint), path=target.service.proof.path
        )
        for target in result.targets
        for name, template in target.service.preset.variables
    }


def _limits(result: Redirected, variables: Mapping[str, str | None]) -> str:
    """Return a warning that names the SDKs that ignore the variables."""
    ignored_by = dict.fromkeys(target.service.preset.ignored_by for target in result.targets)
    known = f" (known: {'; '.join(filter(None, ignored_by))})" if any(ignored_by) else ""
    names = ", ".join(name for name, value in variables.items() if value is not None)
    return (
        f"MOCK_BACKEND=env: only {names} lead to the mock; SDKs that ignore them{known} reach any service at the"
        " metadata address, for there is no redirect and no guard"
    )


def _hosts(result: Redirected) -> Iterator[str]:
    """Yield the hosts in the URLs of SDKs: addresses, IPv6 with and without brackets, and names."""
    for target in result.targets:
        endpoints = target.service.preset.endpoints
        for endpoint in (*endpoints, *([target.mock.endpoint] if result.backend == BY_VARIABLES else [])):
            yield from dict.fromkeys((str(endpoint.address), endpoint.host))
        yield from target.service.preset.names
