"""Prove a redirect: ask through the metadata address, and see that the mock answers, by the rule."""

from __future__ import annotations

from imds_detour.deadline import Deadline, until_ready
from imds_detour.discovery.probe import Client, identify, shown
from imds_detour.errors import DetourError, NotYetError
from imds_detour.firewall.rules import COMMENT, nat_rules
from imds_detour.system import conntrack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from imds_detour.discovery.probe import Identity
    from imds_detour.firewall.base import Firewall
    from imds_detour.firewall.rules import Redirect
    from imds_detour.log import Log
    from imds_detour.result import Target

TIMEOUT = 10.0
"""Seconds for an answer through the redirect. The mock has just answered directly."""
MIN_TIMEOUT = 0.1
"""Seconds for it even if the deadline is nearer: with no time, every service seems silent."""
FIRST_TIMEOUT = 2.0
"""Seconds for the first of these answers: another rule may lead to an address that is silent."""
READINGS = 5
"""Attempts to see the counter rise. Another writer of a legacy table resets its counters for a moment."""


STILL = "its counter does not rise; "


class NotByRuleError(DetourError):
    """The connections to a metadata address do not pass imds-detour's rule; another rule comes before it."""


def verify(targets: Sequence[Target], firewall: Firewall, deadline: Deadline, log: Log) -> tuple[Identity, ...]:
    """Wait until each mock answers at its metadata address by the rule, and return the answers.

    The mock has answered directly before; its answer now must be the same. Without the rule, nothing is asked.

    Raises NotByRuleError when an answer did not come by the rule, and DetourError when another service or none
    answers there.
    """
    answers: dict[int, Identity] = {}
    pending = list(range(len(targets)))
    for _ in range(READINGS if targets else 0):
        redirects = [targets[number].redirect for number in pending]
        before = _packets(firewall, redirects)
        for number, packets in zip(pending, before, strict=True):
            answers[number] = _wait(targets[number], firewall, packets, deadline, log)
        after = _packets(firewall, redirects)
        pending = [number for number, old, new in zip(pending, before, after, strict=True) if new <= old]
        if not pending:
            break
    if pending:
        raise _not_by_rule(targets[pending[0]], f"{STILL}it answers like the mock")
    return tuple(answers[number] for number in range(len(targets)))


def _wait(target: Target, firewall: Firewall, packets: int, deadline: Deadline, log: Log) -> Identity:
    """Return the answer at a metadata address, whose rule had this count before."""
    timeout = Deadline(max(MIN_TIMEOUT, deadline.within(TIMEOUT)))
    redirect = target.redirect
    limit, bypassed = FIRST_TIMEOUT, 0

    def attempt() -> Identity:
        nonlocal limit, bypassed
        try:
            return _ask(target, Deadline(max(MIN_TIMEOUT, timeout.within(limit))), log)
        except NotByRuleError:
            raise
        except DetourError as error:
            if _packets(firewall, [redirect])[0] > packets:
                limit = TIMEOUT  # it is the mock that is slow
                raise
            bypassed += 1
            if bypassed > 1:
                raise _not_by_rule(target, STILL + error.reason) from None
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
    """Do the same for one mock in one attempt, for a caller that tries again later.

    Raises NotYetError when there is no answer at the metadata address now. Raises other errors as verify().
    """
    before = _packets(firewall, [target.redirect])
    failure: DetourError | None = None
    try:
        seen = _ask(target, deadline, log)
    except DetourError as error:
        failure = error
    if _packets(firewall, [target.redirect]) <= before:
        raise _not_by_rule(target, STILL + (failure.reason if failure else "it answers like the mock"))
    if failure:
        raise failure
    return seen


def _ask(target: Target, deadline: Deadline, log: Log) -> Identity:
    endpoint, limit = target.redirect.endpoint, deadline.limit / 2  # of a token and an answer, each has a half
    client = Client(endpoint, deadline, log.step, limit)
    seen = client.identify(target.mock.question)
    same(target, seen, deadline, log)
    # The counter can rise by a neighbour's connection too, so look at this one where the kernel lists connections.
    leads_to = conntrack.leads_to(client.own, endpoint) if client.own else None
    if leads_to not in (None, target.redirect.mock):
        raise _not_by_rule(target, f"the connection leads to {leads_to}; it answers like the mock")
    return seen


def _not_by_rule(target: Target, seen: str) -> NotByRuleError:
    return NotByRuleError(
        "probe",
        f"{target.redirect.endpoint} is not reached by the rule: {seen}",
        "another rule redirects that address already (`nft list ruleset`, `iptables-save`): remove one of the two",
    )


def same(target: Target, seen: Identity, deadline: Deadline, log: Log) -> None:
    """Compare the answer seen at the metadata address; DetourError if it is not the mock's, which may have changed.

    Of a mock that answers differently each time, only the status is compared, unless the user has chosen the path.
    """
    expected, question, redirect = target.mock.identity, target.mock.question, target.redirect
    assert expected is not None  # noqa: S101  (without a probe, nothing is verified)
    if seen.is_like(expected):
        return
    if seen.doubt and not expected.doubt:
        raise NotYetError("probe", seen.doubt)
    try:
        now = identify(redirect.mock, question, deadline)
    except NotYetError:
        now = expected  # its last answer
    if seen.is_like(now):
        return
    if not now.is_like(expected):
        varies = f"the mock at {redirect.mock} answers GET {shown(question.proof.path)} differently each time"
        if question.proof.accept != "200" and seen.status == now.status == expected.status:
            log.step(f"{varies}: its status is compared alone")
            return
        raise DetourError("probe", varies, "let MOCK_PROBE name a path whose answer stays the same")
    raise DetourError(
        "probe",
        f"another service answers at {redirect.endpoint}: {seen}; the mock at {redirect.mock} is {expected}",
        "look for other rules or proxies that take that address (`nft list ruleset`, `iptables-save`)",
    )


def _packets(firewall: Firewall, redirects: Sequence[Redirect]) -> list[int]:
    """Return the connections that each rule has redirected. Without the rule, the real service could be asked."""
    counts = {entry.rule.replace(comment=COMMENT): entry.packets for entry in firewall.installed("nat") if entry.rule}
    rules = {redirect: nat_rules({redirect: COMMENT}, firewall.layout) for redirect in redirects}
    for redirect, needed in rules.items():
        if not counts.keys() >= set(needed):
            raise DetourError(
                "firewall",
                f"the rule that redirects {redirect.endpoint} is missing or has no effect",
                "look for another program that changes the firewall (`nft list ruleset`, `iptables-save`)",
            )
    return [counts[rules[redirect][-1]] for redirect in redirects]  # the translation, after its jump
