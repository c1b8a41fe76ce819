"""Keep guard, redirects and host names installed: look at intervals, and repair what differs."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import inf

from imds_detour.ctl.sidecar.restarting_firewall import RestartingFirewall, guard_parts
from imds_detour.deadline import Deadline
from imds_detour.errors import DetourError
from imds_detour.firewall.base import Firewall
from imds_detour.firewall.change import AddGuard, Change, SetRedirects
from imds_detour.firewall.lock import SETUP, namespace_lock
from imds_detour.firewall.rules import SIDECAR_COMMENT, Redirect, is_forwarded, redirects_of
from imds_detour.guard import install_guards
from imds_detour.log import Log
from imds_detour.redirect import Transaction, install_redirects
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
    interval: float  # seconds between two looks
    due: float = field(init=False)  # when the next look is due, by time.monotonic()
    repairs: int = 0  # how often another program's change of the rules was undone
    own_failure: bool = False  # whether a change failed here: the next difference need not be another program's work
    guards: tuple[tuple[Firewall, AddGuard], ...] = ()
    _closing: set[Redirect] = field(default_factory=set)  # redirects that could not be removed
    _complete: object = None  # what the rules were compared with when nothing was missing
    _looked: float = -inf  # when the last look was
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

    def read_soon(self) -> None:
        """Read the rules soon, after a change that may be another program's; at most five times a second."""
        # The kernel raises the generation before it shows the new rules, so the last read may have seen the old ones.
        self.due, self._complete = min(self.due, max(time.monotonic(), self._looked + 0.2)), None

    def read_now(self) -> None:
        """Read the rules at the next reconcile(), which is due now."""
        self.due, self._complete = time.monotonic(), None

    def reconcile(self, targets: Sequence[Target]) -> None:
        """If it is due, compare rules and host names with what these targets need, and repair differences.

        Rules of nftables are not read if nothing was missing when they were read last, and nothing has changed since.
        """
        if time.monotonic() < self.due:
            return
        self._looked = time.monotonic()
        self.due = self._looked + self.interval
        try:  # Kubernetes rewrites a pod's /etc/hosts when a container starts
            etc_hosts.add(host_names(targets))
            self._warn("names", "")
        except DetourError as error:
            self._warn("names", error.reason)
        try:
            generation = self.firewall.generation()  # before the rules, so that a change meanwhile is another one
            now = generation, self.environment, self.guards, [target.redirect for target in targets]
            read = generation is None or now != self._complete or self._closing
            repairs = [*self._guard_repairs(), *self._redirect_repairs(targets)] if read else []
        except DetourError as error:
            self._warn("reading", f"imds-detour's firewall rules cannot be read: {error.reason}; it is tried again")
            self.due = time.monotonic() + RETRY
            return
        self._warn("reading", "")
        self._complete = None if repairs else now
        own_failure, self.own_failure = self.own_failure, False
        problem = ""
        if repairs and own_failure:
            problem = "imds-detour's firewall rules are not as they should be: they are put back"
        elif repairs:
            self.repairs += 1
            problem = "another program has changed imds-detour's firewall rules: they are put back"
        self._warn("rules", problem)
        for firewall, change in repairs:
            self._apply(firewall, change)

    def close(self, redirects: Iterable[Redirect]) -> bool:
        """Remove redirects, and return whether they are removed; a failure is retried by reconcile()."""
        self._closing.update(redirects)
        if self._closing and self._apply(self.firewall, SetRedirects(remove=tuple(self._closing))):
            self._closing.clear()
        return not self._closing

    def install_redirects(self, transaction: Transaction, targets: Sequence[Target]) -> None:
        """Install the redirects of these targets; DetourError when the firewall refuses."""
        install_redirects(transaction, self.firewall, targets, SIDECAR_COMMENT, forwarded=self.environment.forwarded)

    def install_guard(self, environment: Environment) -> None:
        """Install the guard; DetourError when the firewall refuses."""
        with Transaction(Deadline(inf), self.log) as transaction:
            self.guards = install_guards(transaction, guard_parts(self.firewall, self.log), environment.guarded)
            transaction.keep()

    def _guard_repairs(self) -> list[tuple[Firewall, Change]]:
        """Return the changes that install what is missing of the guard."""
        repairs: list[tuple[Firewall, Change]] = []
        for firewall, change in self.guards:
            installed = [entry.rule for entry in firewall.installed("filter")]
            present = tuple(rule for rule in installed if rule is not None)
            if None in installed or set(change.wanted(present, firewall.layout)) != set(present):
                repairs.append((firewall, change))
        return repairs

    def _redirect_repairs(self, targets: Sequence[Target]) -> list[tuple[Firewall, Change]]:
        """Return the change that installs missing redirects, and removes those that a sidecar has left.

        Redirects of other endpoints belong to other starts, and so does one of an endpoint whose mock does not answer
        here, unless a sidecar installed it.
        """
        wanted = {target.redirect: SIDECAR_COMMENT for target in targets}
        rules = [entry.rule for entry in self.firewall.installed("nat")]
        present = redirects_of(rule for rule in rules if rule is not None)
        own = {endpoint for service in self.environment.services for endpoint in service.preset.endpoints}
        left = {redirect for redirect, comment in present.items() if comment == SIDECAR_COMMENT} - wanted.keys()
        remove = self._closing | {redirect for redirect in left if redirect.endpoint in own}
        if not remove & present.keys():
            self._closing.clear()
        forwarded = self.environment.forwarded and bool(wanted)
        partial = forwarded > is_forwarded((rule for rule in rules if rule), self.firewall.layout)
        if not (None in rules or partial or remove & present.keys() or wanted.keys() - present.keys()):
            return []
        return [(self.firewall, SetRedirects(tuple(wanted.items()), tuple(remove - wanted.keys()), forwarded or None))]

    def _apply(self, firewall: Firewall, change: Change) -> bool:
        try:
            with namespace_lock(SETUP, LOCK_TIMEOUT):
                firewall.apply(change, LOCK_TIMEOUT)
        except DetourError as error:
            self._warn(change.table, f"table {change.table}: {error.reason}; it is tried again")
            self.own_failure = True
            self.due = time.monotonic() + RETRY
            return False
        self._warn(change.table, "")
        return True

    def _warn(self, subject: str, problem: str) -> None:
        """Warn about a problem once, until it is over or changes; an empty one is over."""
        if problem and problem != self._warned.get(subject):
            self.log.warning(problem)
        self._warned[subject] = problem
