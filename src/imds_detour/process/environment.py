"""What of the app's environment must change for its SDKs to come our way, and what in it stands in the way. Pure."""

from __future__ import annotations

from imds_detour.process import no_proxy
from imds_detour.result import BY_VARIABLES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from imds_detour.config.settings import Settings
    from imds_detour.result import Redirected

AWS_DISABLED = "AWS_EC2_METADATA_DISABLED"


def changes(
    chosen: Settings, done: Redirected, environ: Mapping[str, str]
) -> tuple[dict[str, str | None], tuple[str, ...]]:
    """Return the variables to set for the app, None for one to unset, and what to tell the user."""
    wanted = _to_mocks(done)
    told = [_caveat(done, wanted)] if wanted else []
    exemption = no_proxy.needed(environ, _hosts(done))
    if exemption and chosen.no_proxy:
        wanted.update(exemption.changes)
        told.append(
            f"{exemption.proxy} is set: {', '.join(exemption.hosts)} added to NO_PROXY and no_proxy, or the proxy would"
            " get metadata requests (MOCK_NO_PROXY=keep leaves them alone)"
        )
    elif exemption:
        told.append(
            f"{exemption.proxy} is set and MOCK_NO_PROXY=keep: metadata requests go to the proxy, not to the mock"
        )
    if environ.get(AWS_DISABLED, "").lower() == "true" and any(
        target.service.preset.name == "aws" for target in done.targets
    ):
        told.append(f"{AWS_DISABLED}=true keeps AWS SDKs from asking at all: unset it for the app")
    return wanted, tuple(told)


def _to_mocks(done: Redirected) -> dict[str, str | None]:
    """Return the variables that lead SDKs to the mocks; none where a redirect does. None unsets one."""
    if done.backend != BY_VARIABLES:
        return {}
    # Most SDKs take the variable that says the path before the one that says the whole URL.
    unset: dict[str, str | None] = {
        target.service.preset.path: None for target in done.targets if target.service.preset.path
    }
    return unset | {
        name: template.format(
            url=f"http://{target.mock.endpoint}", host=str(target.mock.endpoint), path=target.service.proof.path
        )
        for target in done.targets
        for name, template in target.service.preset.variables
    }


def _caveat(done: Redirected, variables: Mapping[str, str | None]) -> str:
    """Return what a user must know of this way: who does not listen, and that nothing stands in their way."""
    ignored_by = "; ".join(
        dict.fromkeys(target.service.preset.ignored_by for target in done.targets if target.service.preset.ignored_by)
    )
    known = f" (known: {ignored_by})" if ignored_by else ""
    names = ", ".join(name for name, value in variables.items() if value is not None)
    return (
        f"MOCK_BACKEND=env: only {names} lead to the mock; SDKs that ignore them{known} reach whoever answers at the"
        " metadata address, for there is no redirect and no guard"
    )


def _hosts(done: Redirected) -> Iterator[str]:
    """Yield what SDKs write in their URLs: addresses, IPv6 ones with and without brackets, and names."""
    for target in done.targets:
        endpoints = target.service.preset.endpoints
        for endpoint in (*endpoints, *([target.mock.endpoint] if done.backend == BY_VARIABLES else [])):
            yield from dict.fromkeys((str(endpoint.address), endpoint.host))
        yield from target.service.preset.names
