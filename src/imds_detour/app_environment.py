"""What of the app's environment must change for its SDKs to come our way, and what in it stands in the way. Pure."""

from __future__ import annotations

from imds_detour import endpoint_variables, no_proxy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from imds_detour.passages import Detour
    from imds_detour.settings import Settings

AWS_DISABLED = "AWS_EC2_METADATA_DISABLED"


def changes(
    chosen: Settings, done: Detour, environ: Mapping[str, str]
) -> tuple[dict[str, str | None], tuple[str, ...]]:
    """Return the variables to set for the app, None for one to unset, and what to tell the user."""
    wanted = endpoint_variables.changes(done)
    told = [endpoint_variables.caveat(done, wanted)] if wanted else []
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
        one.service.preset.name == "aws" for one in done.passages
    ):
        told.append(f"{AWS_DISABLED}=true keeps AWS SDKs from asking at all: unset it for the app")
    return wanted, tuple(told)


def _hosts(done: Detour) -> Iterator[str]:
    """Yield what SDKs write in their URLs: addresses, IPv6 ones with and without brackets, and names."""
    for one in done.passages:
        for endpoint in (*one.service.preset.endpoints, *(mock.endpoint for mock in one.mocks)):
            if endpoint in one.service.preset.endpoints or done.backend == endpoint_variables.NAME:
                yield from dict.fromkeys((str(endpoint.address), endpoint.host))
        yield from one.service.preset.names
