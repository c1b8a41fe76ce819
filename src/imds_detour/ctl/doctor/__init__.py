"""The doctor's checks, a function each, in the order in which a start needs what they check.

They write no rule, route or file. Asking for its tables makes the kernel load modules and create the tables.
"""

from collections.abc import Iterator
from dataclasses import replace

from imds_detour.ctl.doctor import configuration, kernel, network, process
from imds_detour.ctl.doctor.context import DoctorContext
from imds_detour.ctl.doctor.result import CheckResult
from imds_detour.process.environment import AWS_DISABLED

CONTAINER_CHECKS = {
    "network namespace": process.network_namespace,
    "user namespace": process.user_namespace,
    "NET_ADMIN": process.net_admin,
    "NET_RAW": process.net_raw,
    "SETPCAP": process.setpcap,
    "legacy iptables": kernel.legacy_kernel,
    "libraries": kernel.libraries,
    "nftables": kernel.nftables,
    "firewall": kernel.firewall,
    "settings": configuration.settings_make_sense,
}
MOCK_CHECKS = ("resolver", "name", "route", "TCP", "HTTP", "who answers", "redirect")
APP_CHECKS = {
    "proxy variables": configuration.proxy,
    AWS_DISABLED: configuration.disabled,
    "endpoint variables": configuration.endpoint_variables,
}


def run_checks(context: DoctorContext) -> Iterator[CheckResult]:
    """Run all checks, those of a mock for each service, and yield their results."""
    for name, check in CONTAINER_CHECKS.items():
        yield replace(check(context), name=name)
    for service in context.settings.services:
        suffix = f" ({service.preset.name})" if len(context.settings.services) > 1 else ""
        for name, result in zip(MOCK_CHECKS, network.run_checks(context, service), strict=True):
            yield replace(result, name=name + suffix)
    for name, check in APP_CHECKS.items():
        yield replace(check(context), name=name)
