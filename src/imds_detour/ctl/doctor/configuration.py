"""Checks of the environment: the settings, and variables that make SDKs bypass a redirect."""

from imds_detour.advice.values import unknown
from imds_detour.config import settings
from imds_detour.ctl.doctor.context import DoctorContext
from imds_detour.ctl.doctor.result import CheckResult, fail, ok, skipped, warn
from imds_detour.process.environment import AWS_DISABLED, elsewhere, hosts, proxy_exemption


def settings_make_sense(context: DoctorContext) -> CheckResult:
    """Check the MOCK_* variables; an unknown one is a typo."""
    if context.error is not None:
        return fail(context.error.reason, context.error.remedy)
    names = settings.unknown(context.environ)
    if names:
        return warn(unknown(names[0]), "correct its name, or remove it: `imds-detour --help` lists them all")
    services = context.settings.services
    return ok("; ".join(f"{at.preset.name} -> {at.mock.host} port {at.mock.port}" for at in services))


def proxy(context: DoctorContext) -> CheckResult:
    """Check for a proxy, which gets metadata requests before a firewall sees them."""
    required = (host for service in context.settings.services for host in hosts(service.preset))
    exemption = proxy_exemption(context.environ, required)
    if exemption is None:
        return ok("no proxy for metadata requests")
    seen = f"{exemption.proxy} is set, and NO_PROXY does not name {', '.join(exemption.hosts)}"
    if context.settings.no_proxy:
        return ok(f"{seen}: imds-detour adds what is missing, for the app")
    lines = ", ".join(f'{variable}: "{value}"' for variable, value in exemption.changes.items())
    return fail(
        f"{seen}: with MOCK_NO_PROXY=keep the proxy gets the metadata requests, and no firewall sees them",
        f"in Compose `environment: {{{lines}}}`; or leave MOCK_NO_PROXY out, and imds-detour does so",
    )


def disabled(context: DoctorContext) -> CheckResult:
    """Check whether AWS SDKs are disabled: then they send no request."""
    value = context.environ.get(AWS_DISABLED, "")
    if value.lower() == "true" and any(service.preset.name == "aws" for service in context.settings.services):
        return fail(
            f"{value}: AWS SDKs do not ask the metadata service at all",
            f'in Compose `environment: {{{AWS_DISABLED}: "false"}}`, or remove it from the Dockerfile',
        )
    return ok(value or "not set")


def endpoint_variables(context: DoctorContext) -> CheckResult:
    """Check for variables with another endpoint: SDKs that follow them ask there."""
    if context.settings.backend == "env":
        return skipped("MOCK_BACKEND=env sets them for the app")
    for service in context.settings.services:
        mock = context.mock(service)
        own = [at for at in service.preset.endpoints if mock is None or at.address.version == mock[0].address.version]
        for warning in elsewhere(service, own, context.environ):
            return warn(*warning.split("; "))
    return ok("none with another endpoint")
