"""The proof: ask through the metadata address, and see that it is the mock that answers, by our rule."""

from __future__ import annotations

from imds_detour.deadline import Deadline, until_ready
from imds_detour.discovery.probe import identify
from imds_detour.errors import DetourError, NotYetError
from imds_detour.firewall.rules import translation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from imds_detour.discovery.probe import Identity, Question
    from imds_detour.firewall.base import Firewall
    from imds_detour.firewall.rules import Redirect, Rule
    from imds_detour.log import Log

TIMEOUT = 10.0
"""Seconds. The mock has just answered directly; if it does not do so through the redirect soon, it never will."""

MIN_TIMEOUT = 0.1
"""Seconds that it has for that though the deadline be nearer: with none, nobody at all would seem to answer."""

READINGS = 5
"""How often to look for the counter to rise. Another writer of a legacy table sets its counters to 0 for a moment."""


def verify(redirect: Redirect, expected: Identity, question: Question, firewall: Firewall, log: Log) -> Identity:
    """Return what the mock says at the metadata address, once it is the mock, and nobody else, that answers there.

    Raises:
        DetourError: when somebody else or nobody answers there, or the answer did not come by our rule.

    """
    deadline = Deadline(max(MIN_TIMEOUT, log.deadline.within(TIMEOUT)))
    return _counted(redirect, firewall, lambda: compare(redirect, expected, question, deadline, log))


def verify_now(redirect: Redirect, expected: Identity, question: Question, firewall: Firewall, log: Log) -> Identity:
    """Return the same at the first attempt, for one who comes back anyway.

    Raises:
        NotYetError: when nobody answers at the metadata address now.
        DetourError: as verify().

    """

    def ask() -> Identity:
        seen = identify(redirect.endpoint, question, log.deadline, log.step)
        if seen.body != expected.body:
            _blame(redirect, seen, expected, question, log.deadline)
        return seen

    return _counted(redirect, firewall, ask)


def _counted(redirect: Redirect, firewall: Firewall, ask: Callable[[], Identity]) -> Identity:
    """Return what is answered at the metadata address, once the counter of our rule has risen with the question."""
    rule = translation(redirect, firewall.layout)
    for _ in range(READINGS):
        before = _packets(firewall, rule)
        seen = ask()
        if _packets(firewall, rule) > before:
            return seen
    raise DetourError(
        "probe",
        f"{redirect.endpoint} answers like the mock, but not by our rule: its counter stands still",
        "another rule redirects that address already (`nft list ruleset`, `iptables-save`): remove one of the two",
    )


def compare(redirect: Redirect, expected: Identity, question: Question, deadline: Deadline, log: Log) -> Identity:
    """Return what the mock says at the metadata address; whether it came there by our rule is not looked at.

    Raises:
        DetourError: when somebody else or nobody answers there.

    """
    seen = _ask(redirect, question, deadline, log)
    if seen.body != expected.body:
        _blame(redirect, seen, expected, question, deadline)
    return seen


def _ask(redirect: Redirect, question: Question, deadline: Deadline, log: Log) -> Identity:
    def waiting(error: NotYetError) -> None:
        log.waiting(NotYetError(error.step, f"{redirect.mock} through {redirect.endpoint}: {error.reason}"))

    try:
        return until_ready(
            lambda: identify(redirect.endpoint, question, deadline, log.step), deadline, on_failure=waiting
        )
    except NotYetError as error:
        raise DetourError(
            "probe",
            f"the mock answers at {redirect.mock} and not through {redirect.endpoint}: {error.reason}",
            "look for other firewall rules in this container (`nft list ruleset`, `iptables-save`)",
        ) from None


def _blame(redirect: Redirect, seen: Identity, expected: Identity, question: Question, deadline: Deadline) -> None:
    """Ask the mock again; return when it is the mock that has changed its answer for good.

    Raises:
        DetourError: when it is somebody else who answers at the metadata address, or the mock says something new each
            time, which proves nothing.

    """
    try:
        now = identify(redirect.mock, question, deadline)
    except NotYetError:
        now = expected  # what it said when it last answered
    if now.body == seen.body:
        return
    if now.body != expected.body:
        asked = f"GET {question.proof.path}"
        raise DetourError(
            "probe",
            f"the mock at {redirect.mock} answers {asked} with something new each time: {expected}, {now}",
            "let MOCK_PROBE name a path whose answer stays the same",
        )
    raise DetourError(
        "probe",
        f"somebody else answers at {redirect.endpoint}: {seen}; the mock at {redirect.mock} is {expected}",
        "look for other rules or proxies that take that address (`nft list ruleset`, `iptables-save`)",
    )


def _packets(firewall: Firewall, rule: Rule) -> int:
    return sum(found.packets for found in firewall.installed(rule.table) if found.rule == rule)
