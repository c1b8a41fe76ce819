"""Everything that a redirect needs, in the order in which it is needed, one function each.

They write no rule, route or file; to ask for its tables makes the kernel load modules, and the tables, which are empty.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from imds_detour.ctl.doctor import configuration, kernel, network, process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from imds_detour.config.services import Service
    from imds_detour.ctl.doctor.context import DoctorContext
    from imds_detour.ctl.doctor.result import Finding

OF_THE_CONTAINER: tuple[Callable[[DoctorContext], Finding], ...] = (
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
OF_A_MOCK: tuple[Callable[[DoctorContext, Service], Finding], ...] = (
    network.resolver,
    network.name,
    network.route,
    network.tcp,
    network.http,
    network.who,
    network.redirect,
)
OF_THE_APP: tuple[Callable[[DoctorContext], Finding], ...] = (
    configuration.proxy,
    configuration.disabled,
    configuration.endpoint_variables,
)


def examine(context: DoctorContext) -> Iterator[Finding]:
    """Look at one precondition after the other, each service's mock in turn, and yield what is found."""
    for check in OF_THE_CONTAINER:
        yield check(context)
    for service in context.services:
        for check_mock in OF_A_MOCK:
            finding = context.once(check_mock, service)
            which = f"{finding.name} ({service.preset.name})" if len(context.services) > 1 else finding.name
            yield replace(finding, name=which)
    for check in OF_THE_APP:
        yield check(context)
