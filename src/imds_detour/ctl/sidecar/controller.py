"""The sidecar loop: probe each redirect, change it when the mock moves, close it when the mock does not answer."""

import re
import time
from collections.abc import Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field
from math import inf

from imds_detour.ctl.installed import InstalledRules, summarize
from imds_detour.ctl.sidecar.prober import REPROBE_TIMEOUT, TIMEOUT, Prober, SidecarCache
from imds_detour.ctl.sidecar.reconciler import LOCK_TIMEOUT, Reconciler
from imds_detour.ctl.sidecar.signals import Signals, StoppedError
from imds_detour.ctl.sidecar.state import FIRST_PAUSE, NOT_PROBED, ServiceStatus, State
from imds_detour.deadline import Deadline
from imds_detour.endpoint import Address
from imds_detour.errors import DetourError
from imds_detour.firewall.lock import SETUP, namespace_lock
from imds_detour.firewall.rules import Redirect
from imds_detour.log import Log
from imds_detour.redirect import Transaction
from imds_detour.result import Target

Changes = dict[ServiceStatus, tuple[Target, ...]]

SECONDS = re.compile(r"\d[\d.e-]* s\b")
"""A time in a reason. It differs from attempt to attempt, and makes no new reason."""
REPROBE = 0.2
"""Seconds until a failed probe is repeated; only the second failure closes the redirect."""
HEARTBEAT = 1.0
"""Seconds between two snapshots during a step: mocks that do not answer take seconds each."""
READ_EVERY = 6
"""Intervals between two reads of the rules for the page: own changes are read at once, a read takes about 1 ms."""
MAX_PAUSE, GROWTH = 1.0, 1.5
"""Seconds between two searches for a mock at most, and the factor by which each pause grows."""
SETTLING = 10.0
"""Seconds of the search for mocks over a new IP version: its addresses and routes appear one by one, and an
address is valid only after duplicate address detection (RFC 4862)."""


@dataclass(slots=True, eq=False)
class Controller:
    """Keeps a redirect for each service whose mock answers."""

    reconciler: Reconciler
    prober: Prober
    cache: SidecarCache
    signals: Signals
    log: Log
    interval: float  # seconds between two probes
    latest: State = field(init=False)  # a snapshot for other threads
    _settled: float = -inf
    _rules: tuple[InstalledRules, ...] = ()  # as the firewalls had them when they were read last
    _rules_due: float = 0.0
    _started: float = field(default_factory=time.monotonic)
    _born: float = field(default_factory=time.time)
    _counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("probe_failures", "swaps", "closings"), 0))
    _statuses: list[ServiceStatus] = field(init=False)

    def __post_init__(self) -> None:
        self._statuses = [ServiceStatus(service) for service in self.reconciler.environment.services]
        self.latest = self.state()

    def step(self) -> float:
        """Do what is due, and return the seconds until something is due again. A stop interrupts it."""
        if self.reconciler.guard_new_versions():
            self._settled = time.monotonic() + SETTLING
            for status in self._statuses:
                status.moved, status.search_due = bool(status.targets), time.monotonic()
        self.reconciler.reconcile([target for status in self._statuses for target in status.targets])
        with suppress(StoppedError):
            for status in self._statuses:
                self._update(status)
                if time.monotonic() > self.latest.beat + HEARTBEAT:
                    self.latest = self.state()
        if time.monotonic() >= self._rules_due:
            self._read_rules()
        self.latest = self.state()
        due = min(self.reconciler.due, *map(self._due, self._statuses))
        return max(0.0, due - time.monotonic())

    def refresh(self) -> None:
        """Let everything be due now."""
        for status in self._statuses:
            status.due, status.search_due, status.pause = 0.0, 0.0, FIRST_PAUSE
            self.cache.invalidate(status.service.mock.host)
        self._rules_due = 0.0
        self.reconciler.read_now()

    def state(self) -> State:
        """Return the state for people and programs."""
        lookups = {"lookups": self.cache.lookups, "lookup_failures": self.cache.failures}
        refused: dict[Address, int] = {}
        for guarded in (guarded for rules in self._rules for guarded in rules.guarded):
            refused[guarded.address] = refused.get(guarded.address, 0) + guarded.refused
        return State(
            tuple(map(copy, self._statuses)),
            self.reconciler.firewall.name,
            time.monotonic(),
            self._started,
            time.time() - time.monotonic(),
            {**self._counts, "probes": self.prober.probes, "repairs": self.reconciler.repairs, **lookups},
            frozenset(active.redirect.endpoint for rules in self._rules for active in rules.redirects),
            refused,
            self._born,
            self.reconciler.environment.versions,
        )

    def _read_rules(self) -> None:
        """Read what is redirected and guarded, also by other starts."""
        self._rules_due = time.monotonic() + READ_EVERY * self.interval
        parts = dict.fromkeys((self.reconciler.firewall, *(part for part, _ in self.reconciler.guards)))
        with suppress(DetourError):  # the reconciler warns of it
            self._rules = tuple(summarize(part.name, part.layout, part.installed()) for part in parts)

    def _due(self, status: ServiceStatus) -> float:
        """Return when something is due for a service, by time.monotonic()."""
        if not status.targets:
            return status.due
        # A look-up of the name shows a move; after that, the next search does not wait for another look-up.
        search = status.search_due if status.moved else max(status.search_due, self.cache.due[status.service.mock.host])
        return min(status.due, search)

    def _update(self, status: ServiceStatus) -> None:
        with self.signals.interruptible():
            pass  # a stop that came during another service's update
        if not status.targets:
            if time.monotonic() >= status.due:
                self._search(status)
        elif time.monotonic() >= status.search_due and self._moved(status):
            self._search(status)
        elif time.monotonic() >= status.due:
            self._probe(status)

    def _search(self, status: ServiceStatus) -> None:
        """Search for the mock once, and change the redirect if it leads to another address."""
        try:
            targets = self.prober.find(status.service)
            changes = {status: targets}
            if _redirects(targets) != _redirects(status.targets):
                changes |= self._changes_along(status, targets)
                self._change(changes)
            for changed, targets in changes.items():
                changed.moved, changed.search_due = time.monotonic() < self._settled, time.monotonic() + MAX_PAUSE
                self._open(changed, targets, ", ".join(dict.fromkeys(str(target.mock.identity) for target in targets)))
        except DetourError as error:
            pause, status.pause = status.pause, min(status.pause * GROWTH, MAX_PAUSE)
            status.search_due = time.monotonic() + pause
            if status.targets and time.monotonic() >= status.due:  # it may answer at its old address only
                wait = status.pause
                self._probe(status)
                status.pause = wait
            if status.targets:
                return
            self.cache.invalidate(status.service.mock.host)
            self._close(status, error.reason)
            status.due = time.monotonic() + pause

    def _changes_along(self, status: ServiceStatus, targets: Sequence[Target]) -> Changes:
        """Return the changes of other services that share an endpoint with a service whose mock has moved."""
        mocks = {target.redirect.endpoint: target.redirect.mock for target in targets}
        changes: Changes = {}
        for other in self._statuses:
            if other is status or not other.targets:
                continue
            if all(mocks.get(own.endpoint, own.mock) == own.mock for own in _redirects(other.targets)):
                continue
            try:
                changes[other] = self.prober.find(other.service)
            except DetourError as error:
                other.due = time.monotonic()  # probe it now: if it does not answer, its redirect is closed
                reason = f"{other.name} shares its address and does not answer: {error.reason}"
                raise DetourError(error.step, reason, error.remedy) from None
        return changes

    def _change(self, changes: Changes) -> None:
        """Change redirects in one commit and verify them; those that fail are undone."""
        others = [target for status in self._statuses if status not in changes for target in status.targets]
        try:
            deadline = Deadline(TIMEOUT)
            with namespace_lock(SETUP, LOCK_TIMEOUT), Transaction(deadline, self.log) as transaction:
                changed = [target for targets in changes.values() for target in targets]
                self.reconciler.install_redirects(transaction, (*others, *changed))
                self.prober.verify(changed, TIMEOUT)
                transaction.keep()
        except DetourError:
            self.reconciler.own_failure = True
            raise
        self._counts["swaps"] += sum(status.open for status in changes)

    def _probe(self, status: ServiceStatus) -> None:
        """Probe through the metadata address; one failure is probed again, the second closes the redirect."""
        try:
            answer = self.prober.verify(status.targets, REPROBE_TIMEOUT if status.failed else TIMEOUT)
        except DetourError as error:
            self._counts["probe_failures"] += 1
            self.cache.invalidate(status.service.mock.host)
            status.probed = time.monotonic()
            if not status.failed:
                status.failed, status.due = True, time.monotonic() + REPROBE
                return
            self._close(status, error.reason)
            status.due = time.monotonic()
        else:
            self._open(status, status.targets, answer)

    def _moved(self, status: ServiceStatus) -> bool:
        """Whether the mock's name has lost an address to which the redirect leads."""
        try:
            addresses = self.prober.addresses(status.service)
        except DetourError:
            return status.moved  # while the mock answers, failures of DNS do not count
        status.moved |= any(target.mock.endpoint.address not in addresses for target in status.targets)
        return status.moved

    def _open(self, status: ServiceStatus, targets: tuple[Target, ...], text: str) -> None:
        """Note that the redirect is installed and verified."""
        before, status.probed = status.targets, time.monotonic()
        status.targets, status.failed, status.pause = targets, False, FIRST_PAUSE
        status.due = time.monotonic() + self.interval
        if _redirects(before) != _redirects(targets):
            status.since, self._rules_due = status.probed, 0.0
            arrows = "; ".join(f"{target.redirect.endpoint} -> {target.mock}" for target in targets)
            line = f"{arrows}, {self.reconciler.firewall.name}, verified {text}"
            self.log.success(line, {"service": status.name, "redirect": arrows, "verified": text})
        status.text = text

    def _close(self, status: ServiceStatus, reason: str) -> None:
        """Remove the redirect and leave the address to the guard; the same reason is logged once."""
        before, status.targets, status.failed, status.moved = status.targets, (), False, False
        removed = self.reconciler.close(_redirects(before))
        self._rules_due = 0.0 if before or not removed else self._rules_due
        if status.text == NOT_PROBED:
            self.reconciler.read_now()  # an earlier sidecar may have left a redirect
        if before or SECONDS.sub("", status.text) != SECONDS.sub("", reason):
            closed = "closed" if self.reconciler.environment.guarded else "not redirected"
            state = closed if removed else "still redirected, because the rule cannot be removed,"
            self.log.warning(f"{status.name} is {state} while there is no mock: {reason}")
        if before:
            self._counts["closings"] += 1
            status.since = time.monotonic()
        status.text = reason


def _redirects(targets: Sequence[Target]) -> list[Redirect]:
    return [target.redirect for target in targets]
