"""The proof: ask through the metadata address, and see that it is the mock that answers, by our rule."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imds_detour.errors import DetourError, NotYetError
from imds_detour.probe import identify
from imds_detour.rules import translation
from imds_detour.waiting import Deadline, until_ready

if TYPE_CHECKING:
    from imds_detour.backends import Firewall
    from imds_detour.probe import Identity, Question
    from imds_detour.report import Report
    from imds_detour.rules import Redirect, Rule

PATIENCE = 10.0
"""Seconds. The mock has just answered directly; if it does not do so through the redirect soon, it never will."""


def verify(redirect: Redirect, expected: Identity, question: Question, firewall: Firewall, report: Report) -> None:
    """Return when the mock, and nobody else, answers at the metadata address.

    Raises:
        DetourError: when somebody else or nobody answers there, or the answer did not come by our rule.

    """
    deadline = Deadline(report.deadline.within(PATIENCE))
    rule = translation(redirect)
    before = _packets(firewall, rule)
    try:
        seen = until_ready(lambda: identify(redirect.endpoint, question, deadline), deadline, on_failure=report.waiting)
    except NotYetError as error:
        raise DetourError(
            "probe",
            f"the mock answers at {redirect.mock} and not through {redirect.endpoint}: {error.reason}",
            "look for other firewall rules in this container (`nft list ruleset`, `iptables-save`)",
        ) from None
    if seen != expected:
        raise DetourError(
            "probe",
            f"somebody else answers at {redirect.endpoint}: {seen}; the mock at {redirect.mock} is {expected}",
            "look for other rules or proxies that take that address (`nft list ruleset`, `iptables-save`)",
        )
    if _packets(firewall, rule) <= before:
        raise DetourError(
            "probe",
            f"{redirect.endpoint} answers like the mock, but not by our rule: its counter stands still",
            "another rule redirects that address already (`nft list ruleset`, `iptables-save`): remove one of the two",
        )


def _packets(firewall: Firewall, rule: Rule) -> int:
    return sum(found.packets for found in firewall.installed() if found.rule == rule)
