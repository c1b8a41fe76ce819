"""Checks of this process: its namespaces and capabilities."""

import os

from imds_detour.advice import access
from imds_detour.advice.failure import is_dropped
from imds_detour.ctl.doctor.context import DoctorContext
from imds_detour.ctl.doctor.result import CheckResult, fail, fail_as, ok, unknown, warn
from imds_detour.errors import DetourError, error_text
from imds_detour.firewall.iptables import preflight
from imds_detour.system.capabilities import NET_ADMIN, NET_RAW

SETPCAP = 1 << 8
"""linux/capability.h: CAP_SETPCAP."""
UID_MAP = "/proc/self/uid_map"
"""user_namespaces(7); missing without CONFIG_USER_NS, and if /proc is hidden."""


def network_namespace(context: DoctorContext) -> CheckResult:
    """Check that the network namespace is not the host's."""
    if context.on_the_host:
        return fail_as(access.host_namespace())
    if not context.namespace.net:
        return unknown("/proc/self/ns/net is hidden; assumed to be the container's own")
    return ok("the container's own")


def user_namespace(_context: DoctorContext) -> CheckResult:
    """Check that the network namespace belongs to the user namespace of this process."""
    if refusal := access.other_user_namespace():
        return fail_as(refusal)
    try:
        with open(UID_MAP) as ids:
            mapped = [line.split() for line in ids]
    except OSError as error:
        return unknown(f"{UID_MAP}: {error_text(error)}")
    if [line[:2] for line in mapped] == [["0", "0"]]:
        return ok("the host's")
    return ok(f"rootless: uid {mapped[0][0]} here is uid {mapped[0][1]} outside" if mapped else "")


def net_admin(context: DoctorContext) -> CheckResult:
    """Check for NET_ADMIN in the effective set, which rules and routes need."""
    if context.settings.backend == "env":
        return ok("not needed: MOCK_BACKEND=env changes no rules")
    effective = context.capabilities
    if isinstance(effective, DetourError):  # a start that cannot see that NET_ADMIN is dropped fails
        keeps = context.settings.keep_net_admin
        return unknown(effective.reason) if keeps else fail_as(effective)
    if effective & NET_ADMIN:
        return ok("given")
    error = access.no_net_admin(os.geteuid())
    return fail(error.reason, access.DROPPED if is_dropped() else error.remedy)


def net_raw(context: DoctorContext) -> CheckResult:
    """Check for NET_RAW: legacy iptables opens a raw socket, nftables does not."""
    effective = context.capabilities
    if isinstance(effective, DetourError):
        return unknown(effective.reason)
    if effective & NET_RAW:
        return ok("given")
    if context.settings.backend == "legacy":
        return fail_as(preflight.no_net_raw())
    return ok("not given, and not needed: nftables does without")


def setpcap(context: DoctorContext) -> CheckResult:
    """Check for SETPCAP: dropping NET_ADMIN needs it, or no_new_privs with its side effects."""
    effective = context.capabilities
    if isinstance(effective, DetourError):
        return unknown(effective.reason)
    if effective & SETPCAP or not effective & NET_ADMIN:
        return ok("given" if effective & SETPCAP else "not given, and there is no NET_ADMIN to drop")
    if context.settings.keep_net_admin:
        return ok("not given, and not needed: MOCK_KEEP_NET_ADMIN=1")
    return warn(
        "not given: NET_ADMIN is dropped by no_new_privs, and set-uid programs such as sudo have no effect in the app",
        "if the app needs those: in Compose `cap_add: [NET_ADMIN, SETPCAP]`",
    )
