"""Keep guard, redirects and host names installed: read them at intervals, and repair what differs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf

from imds_detour.ctl.sidecar.restarting_firewall import RestartingFirewall
from imds_detour.deadline import Deadline
from imds_detour.errors import DetourError
from imds_detour.firewall import rules
from imds_detour.firewall.rules import Rule
from imds_detour.log import Log
from imds_detour.redirect import Transaction, install_guard
from imds_detour.result import Environment, Target, host_names
from imds_detour.system import etc_hosts, namespaces

LOCK_TIMEOUT = 0.5
"""Seconds to wait for other writers of the firewall. A failure is retried, and a stop must not wait for it."""
RETRY = 1.0
"""Seconds until a failed read or write is retried."""


@dataclass(slots=True, eq=False)
class Reconciler:
    """Installs rules and host names, and keeps them installed."""

    environment: Environment  # the network namespace, as it was seen last
    inspect: Callable[[], Environment]  # looks at the network namespace again
    firewall: RestartingFirewall
    log: Log
    interval: float  # seconds between two reads
    guarded: bool  # whether metadata addresses that are not redirected are closed
    due: float = field(init=False)  # when the next read is due, by time.monotonic()
    repairs: int = 0  # how often another program's change of the rules was undone
    own_failure: bool = False  # whether a change failed here: the next difference need not be another program's work
    _guard: tuple[Rule, ...] = ()
    _warned: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.due = time.monotonic() + self.interval

    def guard_new_versions(self) -> bool:
        """Guard an IP version that the namespace has got since, and return whether there is one.

        Docker gives a container IPv6 when it joins a network that has it. A version that goes stays guarded.
        """
        if set(namespaces.ip_versions()) <= set(self.environment.versions):
            return False
        try:
            environment = self.inspect()
            self.firewall.restart(environment.versions)
            self.install_guard(environment)
        except DetourError as error:
            self._warn("versions", f"there is a new IP version, and it is not guarded: {error.reason}")
            self.due = min(self.due, time.monotonic() + RETRY)
            return False
        self.environment = environment
        self._warn("versions", "")
        return True

    def reconcile(self, targets: Sequence[Target]) -> None:
        """If it is due, compare rules and host names with what these targets need, and repair differences."""
        if time.monotonic() < self.due:
            return
        self.due = time.monotonic() + self.interval
        self._reconcile_names(targets)
        redirects = self._redirect_rules(targets)
        wanted = {*self._guard, *redirects}
        try:
            installed = [entry.rule for entry in self.firewall.installed()]
        except DetourError as error:
            self._warn("reading", f"imds-detour's firewall rules cannot be read: {error.reason}; it is tried again")
            self.due = time.monotonic() + RETRY
            return
        self._warn("reading", "")
        own_failure, self.own_failure = self.own_failure, False
        if len(installed) == len(wanted) and set(installed) == wanted:
            self._warn("rules", "")
            return
        if own_failure:
            self._warn("rules", "imds-detour's firewall rules are not as they should be: they are put back")
        else:
            self.repairs += 1
            self._warn("rules", "another program has changed imds-detour's firewall rules: they are put back")
        self._apply("filter", self._guard)
        self._apply("nat", redirects)

    def set_redirects(self, targets: Sequence[Target]) -> None:
        """Make these the only redirects; a failure is retried by reconcile()."""
        self._apply("nat", self._redirect_rules(targets))

    def install_guard(self, environment: Environment) -> None:
        """Install the guard, or remove one if none is wanted; DetourError when the firewall refuses."""
        addresses = environment.addresses if self.guarded else ()
        with Transaction(self.firewall, Deadline(inf), self.log) as transaction:
            install_guard(transaction, addresses)
            transaction.keep()
        # As the kernel has them: the guard may drop where it cannot reject.
        installed = (entry.rule for entry in self.firewall.installed())
        self._guard = tuple(rule for rule in installed if rule is not None and rule.table == "filter")

    def _reconcile_names(self, targets: Sequence[Target]) -> None:
        """Restore the lines in /etc/hosts: Kubernetes rewrites a pod's file when a container starts."""
        try:
            etc_hosts.add(host_names(targets))
        except DetourError as error:
            self._warn("names", error.reason)
        else:
            self._warn("names", "")

    def _redirect_rules(self, targets: Sequence[Target]) -> tuple[Rule, ...]:
        return rules.redirect_rules(dict.fromkeys(target.redirect for target in targets), self.firewall.layout)

    def _apply(self, table: str, wanted: tuple[Rule, ...]) -> None:
        try:
            self.firewall.apply(table, wanted, LOCK_TIMEOUT)
        except DetourError as error:
            self._warn(table, f"table {table}: {error.reason}; it is tried again")
            self.own_failure = True
            self.due = time.monotonic() + RETRY
        else:
            self._warn(table, "")

    def _warn(self, subject: str, problem: str) -> None:
        """Warn about a problem once, until it is over or changes; an empty one is over."""
        if problem and problem != self._warned.get(subject):
            self.log.warning(problem)
        self._warned[subject] = problem
