"""Checks of the kernel and the libraries."""

from __future__ import annotations

from imds_detour.ctl.doctor.context import NOT_ASKED, DoctorContext
from imds_detour.ctl.doctor.result import CheckResult, fail, ok, skipped, warn
from imds_detour.errors import DetourError
from imds_detour.firewall.iptables.loader import PACKAGES
from imds_detour.firewall.iptables.preflight import require_capabilities, require_tables
from imds_detour.firewall.nftables.backend import LOAD
from imds_detour.firewall.select import NFT_FIRST
from imds_detour.system.capabilities import NET_ADMIN

NFT_INSTEAD = "; nftables takes its place"
WITHOUT_NET_ADMIN = "cannot be asked for without NET_ADMIN"


def legacy_kernel(context: DoctorContext) -> CheckResult:
    """Check for the tables of legacy iptables, for each IP version."""
    name = "legacy iptables"
    if context.backend in ("nft", "env"):
        return skipped(name, f"MOCK_BACKEND={context.backend} does without")
    if _lacks_net_admin(context):
        return skipped(name, WITHOUT_NET_ADMIN)
    if context.on_the_host:
        return skipped(name, NOT_ASKED)
    if error := _tables_missing(context):
        return _without_legacy(context, name, error.reason, error.remedy)
    return ok(name, "in the kernel, for " + " and ".join(f"IPv{version}" for version in context.versions))


def libraries(context: DoctorContext) -> CheckResult:
    """Load python-iptables, the libraries of iptables, and their extensions."""
    name = "libraries"
    if context.backend in ("nft", "env"):
        return skipped(name, f"MOCK_BACKEND={context.backend} needs none")
    if context.on_the_host:
        return skipped(name, NOT_ASKED)
    error = context.legacy_refusal
    if error is None:
        return ok(name, "python-iptables and the libraries of iptables load")
    if _tables_missing(context):
        return skipped(name, "legacy iptables cannot work here anyway")
    remedy = error.remedy
    if remedy == PACKAGES:
        remedy = "in the Dockerfile `RUN apt-get update && apt-get install -y iptables` (Alpine: `apk add iptables`)"
    return _without_legacy(context, name, error.reason, remedy)


def nftables(context: DoctorContext) -> CheckResult:
    """Check for nf_tables in the kernel."""
    name = "nftables"
    if context.backend in ("legacy", "env"):
        return skipped(name, f"MOCK_BACKEND={context.backend} does without")
    if _lacks_net_admin(context):
        return skipped(name, WITHOUT_NET_ADMIN)
    error = context.nft_refusal
    if error is None:
        return ok(name, "in the kernel")
    if context.backend == "nft" or context.legacy_refusal is not None:
        return fail(name, error.reason, error.remedy or LOAD)
    return ok(name, f"{error.reason}; not needed, legacy iptables works")


def firewall(context: DoctorContext) -> CheckResult:
    """Say which firewall a start would use."""
    name = "firewall"
    if context.backend == "env":
        return skipped(name, "MOCK_BACKEND=env changes no rules")
    if context.on_the_host and context.backend != "nft":
        return skipped(name, f"legacy iptables is {NOT_ASKED}")
    try:
        chosen, reason = context.selector.choose()
    except DetourError as error:
        if error is NFT_FIRST:
            return fail(name, error.reason, error.remedy)
        return skipped(name, "none can be used; see above")
    return ok(name, f"{chosen.name} would be used: {reason}")


def _tables_missing(context: DoctorContext) -> DetourError | None:
    """Return why the kernel has no legacy tables for this process; None if it has them."""
    try:
        for version in context.versions:
            require_capabilities()
            require_tables(version)
    except DetourError as error:
        return error
    return None


def _lacks_net_admin(context: DoctorContext) -> bool:
    """Whether NET_ADMIN is known to be missing; if that is unknown, the kernel is asked."""
    return context.capabilities_unknown is None and not context.capabilities & NET_ADMIN


def _without_legacy(context: DoctorContext, name: str, reason: str, remedy: str) -> CheckResult:
    if context.backend == "legacy":
        return fail(name, reason, remedy)
    if context.nft_refusal is None:
        return ok(name, reason + NFT_INSTEAD)
    return warn(name, reason, remedy)
