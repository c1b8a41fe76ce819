"""Prove a redirect: ask through the metadata address, and see that the mock answers, by the rule."""

from __future__ import annotations

from imds_detour.deadline import Deadline, until_ready
from imds_detour.discovery.probe import identify
from imds_detour.errors import DetourError, NotYetError
from imds_detour.firewall.rules import dnat_rule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from imds_detour.discovery.probe import Identity
    from imds_detour.firewall.base import Firewall
    from imds_detour.firewall.rules import Redirect
    from imds_detour.log import Log
    from imds_detour.result import Target

TIMEOUT = 10.0
"""Seconds for an answer through the redirect. The mock has just answered directly."""
MIN_TIMEOUT = 0.1
"""Seconds for it even if the deadline is nearer: with no time, every service seems silent."""
READINGS = 5
"""Attempts to see the counter rise. Another writer of a legacy table resets its counters for a moment."""


class NotByRuleError(DetourError):
    """The connections to a metadata address do not pass imds-detour's rule; another rule comes before it."""


def verify(target: Target, firewall: Firewall, deadline: Deadline, log: Log) -> Identity:
    """Wait until the mock answers at the metadata address by the rule, and return its answer.

    The mock has answered directly before; its answer now must be the same.

    Raises NotByRuleError when the answer did not come by the rule, and DetourError when another service or none
    answers there.
    """
    timeout = Deadline(max(MIN_TIMEOUT, deadline.within(TIMEOUT)))
    readings = iter(range(READINGS - 1))
    redirect = target.redirect

    def attempt() -> Identity:
        try:
            return verify_once(target, firewall, timeout, log)
        except NotByRuleError as error:
            if next(readings, None) is None:
                raise
            raise NotYetError(error.step, error.reason) from None

    def waiting(error: NotYetError) -> None:
        reason = f"{redirect.mock} through {redirect.endpoint}: {error.reason}"
        log.waiting(NotYetError(error.step, reason), timeout)

    try:
        return until_ready(attempt, timeout, on_failure=waiting)
    except NotYetError as error:
        raise DetourError(
            "probe",
            f"the mock answers at {redirect.mock} and not through {redirect.endpoint}: {error.reason}",
            "look for other firewall rules in this container (`nft list ruleset`, `iptables-save`)",
        ) from None


def verify_once(target: Target, firewall: Firewall, deadline: Deadline, log: Log) -> Identity:
    """Do the same in one attempt, for a caller that tries again later. Without the rule, nothing is asked.

    Raises NotYetError when there is no answer at the metadata address now. Raises other errors as verify().
    """
    before = _packets(firewall, target.redirect)
    failure: DetourError | None = None
    try:
        seen = same(target, identify(target.redirect.endpoint, target.mock.question, deadline, log.step), deadline)
    except DetourError as error:
        failure = error
    if _packets(firewall, target.redirect) > before:
        if failure:
            raise failure
        return seen
    answer = failure.reason if failure else "it answers like the mock"
    raise NotByRuleError(
        "probe",
        f"{target.redirect.endpoint} is not reached by the rule: its counter does not rise; {answer}",
        "another rule redirects that address already (`nft list ruleset`, `iptables-save`): remove one of the two",
    )


def same(target: Target, seen: Identity, deadline: Deadline) -> Identity:
    """Return the answer seen at the metadata address; DetourError if it is not the mock's, which may have changed."""
    expected, question, redirect = target.mock.identity, target.mock.question, target.redirect
    assert expected is not None  # noqa: S101  (without a probe, nothing is verified)
    if seen.body == expected.body:
        return seen
    try:
        now = identify(redirect.mock, question, deadline)
    except NotYetError:
        now = expected  # its last answer
    if now.body == seen.body:
        return seen
    if now.body != expected.body:
        raise DetourError(
            "probe",
            f"the mock at {redirect.mock} answers GET {question.proof.path} differently each time: {expected}, {now}",
            "let MOCK_PROBE name a path whose answer stays the same",
        )
    raise DetourError(
        "probe",
        f"another service answers at {redirect.endpoint}: {seen}; the mock at {redirect.mock} is {expected}",
        "look for other rules or proxies that take that address (`nft list ruleset`, `iptables-save`)",
    )


def _packets(firewall: Firewall, redirect: Redirect) -> int:
    """Return the connections that the rule has redirected. Without the rule, the real service could be asked."""
    wanted = dnat_rule(redirect, firewall.layout)
    for installed in firewall.installed(wanted.table):
        if installed.rule and installed.rule.replace(comment=wanted.comment) == wanted:
            return installed.packets
    raise DetourError(
        "firewall",
        f"the rule that redirects {redirect.endpoint} is missing or has no effect",
        "look for another program that changes the firewall (`nft list ruleset`, `iptables-save`)",
    )
