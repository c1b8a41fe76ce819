"""What the environment says: the settings, and variables that lead SDKs past any redirect."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imds_detour.config import settings
from imds_detour.ctl.doctor.result import Finding, fail, ok, skipped, warn
from imds_detour.process.environment import AWS_DISABLED, proxy_exemption

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imds_detour.ctl.doctor.context import DoctorContext


def settings_make_sense(context: DoctorContext) -> Finding:
    """Look whether the MOCK_* variables make sense; one that means nothing is a typo."""
    name = "settings"
    if context.error is not None:
        return fail(name, context.error.reason, context.error.remedy)
    unknown = settings.unknown(context.environ)
    if unknown:
        seen = f"{unknown[0]} is not a setting of imds-detour{settings.similar(unknown[0])}"
        return warn(name, seen, "correct its name, or take it out: `imds-detour --help` lists them all")
    return ok(
        name, "; ".join(f"{each.preset.name} -> {each.mock.host} port {each.mock.port}" for each in context.services)
    )


def proxy(context: DoctorContext) -> Finding:
    """Look for a proxy: it takes metadata requests away before any firewall sees them."""
    name = "proxy variables"
    exemption = proxy_exemption(context.environ, _hosts(context))
    if exemption is None:
        return ok(name, "none that takes metadata requests away")
    seen = f"{exemption.proxy} is set, and NO_PROXY does not name {', '.join(exemption.hosts)}"
    if context.settings is None or context.settings.no_proxy:
        return ok(name, f"{seen}: imds-detour adds what is missing, for the app")
    lines = ", ".join(f'{variable}: "{value}"' for variable, value in exemption.changes.items())
    return fail(
        name,
        f"{seen}: with MOCK_NO_PROXY=keep the proxy gets the metadata requests, and no firewall sees them",
        f"in Compose `environment: {{{lines}}}`; or leave MOCK_NO_PROXY out, and imds-detour does so",
    )


def disabled(context: DoctorContext) -> Finding:
    """Look whether AWS SDKs are told not to ask: then they never get to any redirect."""
    name = AWS_DISABLED
    value = context.environ.get(name, "")
    if value.lower() == "true" and any(each.preset.name == "aws" for each in context.services):
        return fail(
            name,
            f"{value}: AWS SDKs do not ask the metadata service at all",
            f'in Compose `environment: {{{name}: "false"}}`, or take it out of the Dockerfile',
        )
    return ok(name, f"{value}" if value else "not set")


def endpoint_variables(context: DoctorContext) -> Finding:
    """Look for variables that name another endpoint: the SDKs that honour them go there."""
    name = "endpoint variables"
    if context.backend == "env":
        return skipped(name, "MOCK_BACKEND=env sets them for the app")
    for service in context.services:
        hosts = [endpoint.host for endpoint in service.preset.endpoints]
        for variable, _ in service.preset.variables:
            value = context.environ.get(variable, "")
            if value and not any(host in value for host in (*hosts, *service.preset.names)):
                return warn(
                    name,
                    f"{variable}={value}: SDKs that honour it go there, and not to {hosts[0]}",
                    f"take {variable} out, unless it is meant",
                )
    return ok(name, "none that leads elsewhere")


def _hosts(context: DoctorContext) -> Iterator[str]:
    """Yield what SDKs write in their URLs, as environment.py has it."""
    for service in context.services:
        for endpoint in service.preset.endpoints:
            yield from dict.fromkeys((str(endpoint.address), endpoint.host))
        yield from service.preset.names
