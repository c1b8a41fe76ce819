"""Add to a failure what its step could not know: the true cause, the way out, and where to look next."""

from __future__ import annotations

import os
from ipaddress import ip_address

from imds_detour.advice import access, commands, programs
from imds_detour.config.presets import LINK_LOCAL
from imds_detour.errors import STATUS_NOT_FOUND
from imds_detour.firewall.refusal import is_refused
from imds_detour.system import capabilities, files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from imds_detour.errors import DetourError

MORE = "more: `imds-detourctl doctor`"
DOCTORS = frozenset({"namespace", "firewall", "lookup", "route", "probe", "privileges"})
"""Steps that doctor checks. Of settings and commands it knows no more than the failure says."""


def complete(failure: DetourError, arguments: Sequence[str]) -> None:
    """Complete a failure of the entrypoint, whose arguments are the app's command."""
    refusal = failure.__cause__
    if failure.step == "command" and isinstance(refusal, OSError):
        explained = programs.explain(refusal.filename, refusal)
        failure.reason, failure.remedy, failure.status = explained.reason, explained.remedy, explained.status
    elif failure.status == STATUS_NOT_FOUND:
        failure.remedy = commands.remedy(arguments) or failure.remedy
    _name_the_cause(failure)
    _point_to_doctor(failure)


def complete_for_verb(failure: DetourError, words: Sequence[str]) -> None:
    """Complete a failure of imds-detourctl with these arguments."""
    _name_the_cause(failure)
    if failure.step == "firewall" and not capabilities.effective() & capabilities.NET_ADMIN:
        if is_dropped():
            failure.remedy = access.DROPPED
        elif os.geteuid() != 0:
            failure.remedy = access.as_root(words)
    if words[:1] in (["init"], ["sidecar"]):
        _point_to_doctor(failure)


def is_dropped() -> bool:
    """Whether this is an app, or one of its processes: there is a guard, and sudo could not give NET_ADMIN."""
    by_sudo = os.geteuid() != 0 and capabilities.within_reach(capabilities.NET_ADMIN)
    return not by_sudo and is_refused(ip_address(LINK_LOCAL))


def _name_the_cause(failure: DetourError) -> None:
    """Name what makes the firewall refuse, whatever the request was."""
    if failure.step != "firewall":
        return
    if access.is_emulated():
        failure.remedy = access.BUILD_FOR_MACHINE
    elif error := access.other_user_namespace():
        failure.reason, failure.remedy = error.reason, error.remedy
    elif b"CapAmb" not in files.read(capabilities.STATUS):  # as gVisor shows it (capabilities.sets)
        failure.remedy = access.NO_FIREWALL


def _point_to_doctor(failure: DetourError) -> None:
    if failure.step in DOCTORS:
        failure.remedy = f"{failure.remedy}; {MORE}" if failure.remedy else MORE
