"""Checks of the kernel and the libraries."""

from imds_detour.advice.access import BUILD_FOR_MACHINE, is_emulated
from imds_detour.ctl.doctor.context import NOT_ASKED, DoctorContext
from imds_detour.ctl.doctor.result import CheckResult, fail, ok, skipped, warn
from imds_detour.errors import DetourError
from imds_detour.firewall.iptables.loader import PACKAGES
from imds_detour.firewall.iptables.preflight import require_capabilities, require_tables
from imds_detour.firewall.nftables.backend import LOAD
from imds_detour.firewall.select import NFT_FIRST
from imds_detour.system.capabilities import NET_ADMIN


def legacy_kernel(context: DoctorContext) -> CheckResult:
    """Check for the tables of legacy iptables, for each IP version."""
    if reason := _reason_to_skip(context, "nft"):
        return skipped(reason)
    if context.on_the_host:
        return skipped(NOT_ASKED)
    if error := _tables_missing():
        return _without_legacy(context, error.reason, error.remedy)
    present = [f"IPv{version}" for version in context.versions if _tables_missing(version) is None]
    return ok("in the kernel, for " + " and ".join(present))


def libraries(context: DoctorContext) -> CheckResult:
    """Load python-iptables, the libraries of iptables, and their extensions."""
    if context.settings.backend in ("nft", "env"):
        return skipped(f"MOCK_BACKEND={context.settings.backend} needs none")
    if context.on_the_host:
        return skipped(NOT_ASKED)
    error = context.legacy_refusal
    if error is None:
        return ok("python-iptables and the libraries of iptables load")
    if _tables_missing():
        return skipped("legacy iptables cannot work here anyway")
    install = "in the Dockerfile `RUN apt-get update && apt-get install -y iptables` (Alpine: `apk add iptables`)"
    return _without_legacy(context, error.reason, install if error.remedy == PACKAGES else error.remedy)


def nftables(context: DoctorContext) -> CheckResult:
    """Check for nf_tables in the kernel."""
    if reason := _reason_to_skip(context, "legacy"):
        return skipped(reason)
    error = context.selector.nft_refusal()
    if error is None:
        return ok("in the kernel")
    if context.settings.backend == "nft" or context.legacy_refusal is not None:
        return fail(error.reason, _remedy(error.remedy or LOAD))
    return ok(f"{error.reason}; not needed, legacy iptables works")


def firewall(context: DoctorContext) -> CheckResult:
    """Report the firewall that a start would use."""
    if context.settings.backend == "env":
        return skipped("MOCK_BACKEND=env changes no rules")
    if context.on_the_host and context.settings.backend != "nft":
        return skipped(f"legacy iptables is {NOT_ASKED}")
    try:
        chosen, reason = context.selector.choose()
    except DetourError as error:
        if error is NFT_FIRST:
            return fail(error.reason, error.remedy)
        return skipped("none can be used; see above")
    return ok(f"{chosen.name} would be used: {reason}")


def _tables_missing(version: int = 4) -> DetourError | None:
    """Return why the kernel has no legacy tables for this process; None if it has them. A start needs those of IPv4."""
    try:
        require_capabilities()
        require_tables(version)
    except DetourError as error:
        return error
    return None


def _reason_to_skip(context: DoctorContext, other: str) -> str:
    """Return why the kernel is not asked for a firewall; ``other`` is the MOCK_BACKEND that excludes it."""
    if context.settings.backend in (other, "env"):
        return f"MOCK_BACKEND={context.settings.backend} can do without"
    capabilities = context.capabilities  # if they are unknown, the kernel is asked
    lacking = not isinstance(capabilities, DetourError) and not capabilities & NET_ADMIN
    return "cannot be asked for without NET_ADMIN" if lacking else ""


def _without_legacy(context: DoctorContext, reason: str, remedy: str) -> CheckResult:
    if context.settings.backend == "legacy":
        return fail(reason, _remedy(remedy))
    if context.selector.nft_refusal() is None:
        return ok(f"{reason}; nftables takes its place")
    return warn(reason, _remedy(remedy))


def _remedy(text: str) -> str:
    """Return a remedy; under an emulator it is the machine's architecture, since no kernel module helps."""
    return BUILD_FOR_MACHINE if is_emulated() else text
