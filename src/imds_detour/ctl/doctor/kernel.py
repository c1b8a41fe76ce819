"""Whether this kernel can redirect, and the libraries are there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imds_detour.ctl.doctor.context import NOT_ASKED
from imds_detour.ctl.doctor.result import Finding, fail, ok, skipped, warn
from imds_detour.errors import DetourError
from imds_detour.firewall.iptables.loader import PACKAGES
from imds_detour.firewall.iptables.preflight import require_capabilities, require_tables
from imds_detour.firewall.nftables.backend import LOAD
from imds_detour.system.capabilities import NET_ADMIN

if TYPE_CHECKING:
    from imds_detour.ctl.doctor.context import Case

OTHER = "; nftables takes its place"
UNASKED = "cannot be asked for without NET_ADMIN"


def legacy_kernel(case: Case) -> Finding:
    """Look for the tables of legacy iptables, for each IP version that there is."""
    name = "legacy iptables"
    if case.backend in ("nft", "env"):
        return skipped(name, f"MOCK_BACKEND={case.backend} does without")
    if _known_to_lack_net_admin(case):
        return skipped(name, UNASKED)
    if case.on_the_host:
        return skipped(name, NOT_ASKED)
    if error := _tables_missing(case):
        return _without_legacy(case, name, error.reason, error.remedy)
    return ok(name, "in the kernel, for " + " and ".join(f"IPv{version}" for version in case.versions))


def libraries(case: Case) -> Finding:
    """Load python-iptables, the libraries of iptables, and their extensions."""
    name = "libraries"
    if case.backend in ("nft", "env"):
        return skipped(name, f"MOCK_BACKEND={case.backend} needs none")
    if case.on_the_host:
        return skipped(name, NOT_ASKED)
    error = case.legacy_refusal
    if error is None:
        return ok(name, "python-iptables and the libraries of iptables load")
    if _tables_missing(case):
        return skipped(name, "legacy iptables cannot work here anyway")
    remedy = error.remedy
    if remedy == PACKAGES:
        remedy = "in the Dockerfile `RUN apt-get update && apt-get install -y iptables` (Alpine: `apk add iptables`)"
    return _without_legacy(case, name, error.reason, remedy)


def nftables(case: Case) -> Finding:
    """Look for the nf_tables of the kernel."""
    name = "nftables"
    if case.backend in ("legacy", "env"):
        return skipped(name, f"MOCK_BACKEND={case.backend} does without")
    if _known_to_lack_net_admin(case):
        return skipped(name, UNASKED)
    error = case.nft_refusal
    if error is None:
        return ok(name, "in the kernel")
    if case.backend == "nft" or case.legacy_refusal is not None:
        return fail(name, error.reason, error.remedy or LOAD)
    return ok(name, f"{error.reason}; not needed, legacy iptables works")


def firewall(case: Case) -> Finding:
    """Say which one would be taken."""
    name = "firewall"
    if case.backend == "env":
        return skipped(name, "MOCK_BACKEND=env changes no rules")
    if case.on_the_host and case.backend != "nft":
        return skipped(name, f"legacy iptables is {NOT_ASKED}")
    if case.nft_refusal is None and case.backend == "legacy" and case.nft.stands():
        return fail(
            name,
            "rules of ours stand in nftables since an earlier start, and come before those of legacy iptables",
            "take them out: `imds-detourctl remove`; or MOCK_BACKEND=auto",
        )
    if case.backend != "nft" and case.legacy_refusal is None and not case.nft.stands():
        return ok(name, "legacy iptables would be taken")
    if case.backend != "legacy" and case.nft_refusal is None:
        return ok(name, "nftables would be taken")
    return skipped(name, "none can be used; see above")


def _tables_missing(case: Case) -> DetourError | None:
    """Return why legacy iptables has no place here, whatever there is of its libraries; None when it has one."""
    try:
        for version in case.versions:
            require_capabilities()
            require_tables(version)
    except DetourError as error:
        return error
    return None


def _known_to_lack_net_admin(case: Case) -> bool:
    """Whether asking the kernel is in vain; where capabilities cannot be told, the kernel tells."""
    return case.untold is None and not case.capabilities & NET_ADMIN


def _without_legacy(case: Case, name: str, reason: str, remedy: str) -> Finding:
    if case.backend == "legacy":
        return fail(name, reason, remedy)
    if case.nft_refusal is None:
        return ok(name, reason + OTHER)
    return warn(name, reason, remedy)
