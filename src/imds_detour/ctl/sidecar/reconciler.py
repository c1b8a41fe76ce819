"""What stands, and goes on to: guard, redirects and host names are looked at again and again, and put back."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from imds_detour.ctl.sidecar.service_status import HABITS, Habits
from imds_detour.errors import DetourError
from imds_detour.firewall import rules
from imds_detour.redirect import install_guard
from imds_detour.result import host_lines
from imds_detour.system import etc_hosts, ip_versions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from imds_detour.ctl.sidecar.restarting_firewall import LastingFirewall
    from imds_detour.firewall.rules import Rule
    from imds_detour.log import Log
    from imds_detour.result import Environment, Target

LOCK_TIMEOUT = 0.5
"""Seconds to wait for other writers of the firewall: it is tried again, and a stop must not wait for them here."""
SOON = 1.0
"""Seconds until what could not be read or written is tried again."""


class Upkeep:
    """Keeps what stands as it should be.

    Attributes:
        environment: what there is to work on by now.
        firewall: where the rules are.
        guarded: whether the metadata addresses are closed to whatever is not redirected.
        repairs: how often somebody else's change of our rules was undone.

    """

    def __init__(
        self,
        environment: Environment,
        inspect: Callable[[], Environment],
        firewall: LastingFirewall,
        log: Log,
        habits: Habits = HABITS,
    ) -> None:
        """Know the ground, and by ``survey`` how to look at it again; nothing is done yet."""
        self.environment = environment
        self.firewall = firewall
        self.guarded = habits.guard
        self.repairs = 0
        self._inspect = inspect
        self._log = log
        self._every = habits.every
        self._clock = habits.clock
        self._due = self._clock() + self._every
        self._closed: tuple[Rule, ...] = ()
        self._doubtful = False
        self._told: dict[str, str] = {}

    @property
    def due(self) -> float:
        """When the next look is due, on the clock."""
        return self._due

    def look_again(self) -> None:
        """Let it be due now."""
        self._due = self._clock()

    def close(self) -> None:
        """Put the guard up: from here on nothing leaves but by a redirect of ours. Without one, none stays up.

        Raises:
            DetourError: when the firewall does not take it.

        """
        self._close(self.environment)

    def widened(self) -> bool:
        """Whether there is another IP version by now: it is guarded from here on, and mocks may answer over it.

        Docker gives a container IPv6 when it joins a network that has it. One that goes is kept: closed, not open.
        """
        if set(ip_versions.here()) <= set(self.environment.versions):
            return False
        try:
            environment = self._inspect()
            self.firewall.start_anew(environment.versions)
            self._close(environment)
        except DetourError as error:
            self._tell("versions", f"there is another IP version by now, and it is not guarded: {error.reason}")
            self._due = min(self._due, self._clock() + SOON)
            return False
        self.environment = environment
        self._tell("versions", "")
        return True

    def reconcile(self, targets: Sequence[Target]) -> None:
        """When it is due, see that rules and host names stand for these, and put back what somebody took out."""
        if self._clock() < self._due:
            return
        self._due = self._clock() + self._every
        self._name(targets)
        redirects = rules.redirects(_redirects(targets), self.firewall.layout)
        wanted = {*self._closed, *redirects}
        try:
            found = self._rules()
        except DetourError as error:
            self._tell("reading", f"our firewall rules cannot be read: {error.reason}; it is tried again")
            self._due = self._clock() + SOON
            return
        self._tell("reading", "")
        doubtful, self._doubtful = self._doubtful, False
        if len(found) == len(wanted) and set(found) == wanted:
            self._tell("rules", "")
            return
        if doubtful:
            self._tell("rules", "our firewall rules are not as they should be: they are put back")
        else:
            self.repairs += 1
            self._tell("rules", "somebody has changed our firewall rules: they are put back")
        self._apply("filter", self._closed)
        self._apply("nat", redirects)

    def redirect(self, targets: Sequence[Target]) -> None:
        """Let these redirects stand, and no others; one that cannot be taken out now is tried again."""
        self._apply("nat", rules.redirects(_redirects(targets), self.firewall.layout))

    def invalidate(self) -> None:
        """Know that a change of ours went wrong: what is found amiss next need not be somebody else's work."""
        self._doubtful = True

    def _close(self, environment: Environment) -> None:
        with ExitStack() as undo:
            install_guard(self.firewall, environment.addresses if self.guarded else (), undo, self._log)
            undo.pop_all()
        # As the kernel has them: it may drop where it cannot reject.
        self._closed = tuple(rule for rule in self._rules() if rule is not None and rule.table == "filter")

    def _name(self, targets: Sequence[Target]) -> None:
        """See that the names lead to their addresses: Kubernetes writes a pod's file anew at each container's start."""
        with ExitStack() as kept:
            try:
                etc_hosts.add(host_lines(targets), kept, lambda _line: None)
            except DetourError as error:
                self._tell("names", error.reason)
            else:
                self._tell("names", "")
            kept.pop_all()

    def _rules(self) -> Sequence[Rule | None]:
        return [found.rule for found in self.firewall.installed()]

    def _apply(self, table: str, wanted: tuple[Rule, ...]) -> None:
        try:
            self.firewall.apply(table, wanted, LOCK_TIMEOUT)
        except DetourError as error:
            self._tell(table, f"table {table}: {error.reason}; it is tried again")
            self._doubtful = True
            self._due = self._clock() + SOON
        else:
            self._tell(table, "")

    def _tell(self, subject: str, trouble: str) -> None:
        """Warn of a trouble once, until it is over or another one."""
        if trouble and trouble != self._told.get(subject):
            self._log.warning(trouble)
        self._told[subject] = trouble


def _redirects(targets: Sequence[Target]) -> dict[rules.Redirect, None]:
    return dict.fromkeys(redirect for one in targets for redirect in one.redirects)
