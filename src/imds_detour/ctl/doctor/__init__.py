"""The doctor's checks, a function each, in the order in which a start needs what they check.

They write no rule, route or file. Asking for its tables makes the kernel load modules and create the tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from imds_detour.config.services import Service
from imds_detour.ctl.doctor import configuration, kernel, network, process
from imds_detour.ctl.doctor.context import DoctorContext
from imds_detour.ctl.doctor.result import CheckResult

CONTAINER_CHECKS: tuple[Callable[[DoctorContext], CheckResult], ...] = (
    process.network_namespace,
    process.user_namespace,
    process.net_admin,
    process.net_raw,
    process.setpcap,
    kernel.legacy_kernel,
    kernel.libraries,
    kernel.nftables,
    kernel.firewall,
    configuration.settings_make_sense,
)
MOCK_CHECKS: tuple[Callable[[DoctorContext, Service], CheckResult], ...] = (
    network.resolver,
    network.name,
    network.route,
    network.tcp,
    network.http,
    network.who,
    network.redirect,
)
APP_CHECKS: tuple[Callable[[DoctorContext], CheckResult], ...] = (
    configuration.proxy,
    configuration.disabled,
    configuration.endpoint_variables,
)


def run_checks(context: DoctorContext) -> Iterator[CheckResult]:
    """Run all checks, those of a mock for each service, and yield their results."""
    for check in CONTAINER_CHECKS:
        yield check(context)
    for service in context.services:
        for check_mock in MOCK_CHECKS:
            result = context.once(check_mock, service)
            name = f"{result.name} ({service.preset.name})" if len(context.services) > 1 else result.name
            yield replace(result, name=name)
    for check in APP_CHECKS:
        yield check(context)
