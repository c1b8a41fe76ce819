"""The one who follows: probes each redirect, swaps it when the mock moves, closes it when the mock is gone."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from imds_detour import detour, discovery, rules, verification
from imds_detour.ctl.following.state import State
from imds_detour.ctl.following.watch import FIRST_PAUSE, HABITS, UNKNOWN, Habits, Watch
from imds_detour.errors import DetourError
from imds_detour.report import Report
from imds_detour.waiting import Deadline

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imds_detour.backends.firewall import Firewall
    from imds_detour.ctl.following.names import FollowedNames
    from imds_detour.passages import Ground, Passage
    from imds_detour.rules import Rule

PATIENCE = 0.7
"""Seconds that one attempt may take: a stop is acted on between two of them, within a second."""
SECOND_LOOK = 0.2
"""Seconds until a probe that failed is repeated; only the second failure closes the redirect."""
LONGEST_PAUSE, GROWTH = 1.0, 1.5
"""Seconds from one search for a mock that is not there to the next, at most, and each over the last (FIRST_PAUSE)."""


class Follower:
    """Holds the guard, and a redirect for each service whose mock is there."""

    def __init__(
        self, ground: Ground, firewall: Firewall, names: FollowedNames, report: Report, habits: Habits = HABITS
    ) -> None:
        """Know the ground; nothing is done yet."""
        self._ground = ground
        self._firewall = firewall
        self._names = names
        self._report = report
        self._every = habits.every
        self._guard = habits.guard
        self._clock = habits.clock
        self._watches = [Watch(service) for service in ground.services]
        self._closed: tuple[Rule, ...] = ()
        self._inspected = self._clock()
        self._started = time.time()
        self.counts = dict.fromkeys(("probes", "probe_failures", "swaps", "closings", "repairs"), 0)

    def close(self) -> None:
        """Put the guard up: from here on nothing leaves but by a redirect of ours. Without one, none stays up.

        Raises:
            DetourError: when the firewall does not take it.

        """
        with ExitStack() as undo:
            detour.close(self._firewall, self._ground.addresses if self._guard else (), undo, self._report)
            undo.pop_all()
        self._closed = tuple(rule for rule in self._rules() if rule is not None and rule.table == "filter")

    def step(self) -> float:
        """Do what is due, and return the seconds until something is due again."""
        self._inspect()
        for watch in self._watches:
            if watch.passage is None:
                if self._clock() >= watch.due:
                    self._search(watch)
            elif self._clock() >= watch.search_due and self._moved(watch):
                self._search(watch)
            elif self._clock() >= watch.due:
                self._probe(watch)
        due = min(self._names.due(), self._inspected + self._every, *(watch.due for watch in self._watches))
        return max(0.0, due - self._clock())

    def look_again(self) -> None:
        """Let everything be due now."""
        for watch in self._watches:
            watch.due, watch.pause = 0.0, FIRST_PAUSE
            self._names.doubt(watch.service.mock.host)
        self._inspected = self._clock() - self._every

    def state(self) -> State:
        """Return what is known now."""
        lookups = {"lookups": self._names.lookups, "lookup_failures": self._names.failures}
        return State(
            tuple(watch.state() for watch in self._watches),
            self._firewall.name,
            time.time(),
            self._started,
            {**self.counts, **lookups},
            guarded=self._guard,
        )

    def _search(self, watch: Watch) -> None:
        """Look for the mock once, and lead to it if it is there and not where we lead to already."""
        host = watch.service.mock.host
        report = self._attempt()
        try:
            mocks = discovery.Search(watch.service, self._ground.versions, self._names, report).attempt()
            found = detour.passage(watch.service, mocks, self._ground)
            if watch.passage is None or found.redirects != watch.passage.redirects:
                self._lead(watch, found, report)
            self._set(watch, found, ", ".join(dict.fromkeys(str(mock.identity) for mock in mocks)))
        except DetourError as error:
            pause, watch.pause = watch.pause, min(watch.pause * GROWTH, LONGEST_PAUSE)
            watch.search_due = self._clock() + pause
            if watch.passage is not None and self._still_there(watch):
                return
            self._names.doubt(host)
            self._shut(watch, error.reason)
            watch.due = self._clock() + pause

    def _lead(self, watch: Watch, found: Passage, report: Report) -> None:
        """Swap the redirect in one commit, and prove it; a redirect that does not prove is taken out.

        Raises:
            DetourError: when the kernel refuses, or it is not the mock that answers through it.

        """
        others = [each.passage for each in self._watches if each.passage is not None and each is not watch]
        with ExitStack() as undo:
            detour.lead(self._firewall, (*others, found), undo, self._attempt())
            for mock, redirect in zip(found.mocks, found.redirects, strict=True):
                if mock.identity is not None:
                    self.counts["probes"] += 1
                    verification.verify_now(redirect, mock.identity, mock.question, self._firewall, self._attempt())
            undo.pop_all()
        if watch.passage is not None:
            self.counts["swaps"] += 1
        report.step(f"{watch.service.preset.name} is led to {found.mocks[0]}")

    def _probe(self, watch: Watch) -> None:
        """Ask through the metadata address; one failure is looked at again, the second one closes."""
        assert watch.passage is not None  # noqa: S101  (whoever has none is searched for)
        seen = ""
        try:
            for mock, redirect in zip(watch.passage.mocks, watch.passage.redirects, strict=True):
                self.counts["probes"] += 1
                if mock.identity is not None:
                    seen = str(
                        verification.verify_now(redirect, mock.identity, mock.question, self._firewall, self._attempt())
                    )
        except DetourError as error:
            self.counts["probe_failures"] += 1
            self._names.doubt(watch.service.mock.host)
            watch.probed = time.time()
            if not watch.failed:
                watch.failed, watch.due = True, self._clock() + SECOND_LOOK
                return
            self._shut(watch, error.reason)
            watch.due = self._clock()
        else:
            self._set(watch, watch.passage, seen)

    def _still_there(self, watch: Watch) -> bool:
        """Whether a mock whose name leads elsewhere by now, where none is, goes on to answer where it was."""
        pause = watch.pause
        if self._clock() >= watch.due:
            self._probe(watch)
            watch.pause = pause
        return watch.passage is not None

    def _moved(self, watch: Watch) -> bool:
        """Whether the name leads to other addresses by now than to those where the mock is."""
        assert watch.passage is not None  # noqa: S101  (as above)
        try:
            addresses = self._names.resolve(watch.service.mock.host).addresses
        except DetourError:
            return False  # as long as it proves to be the mock, what DNS says of it does not count
        return any(mock.endpoint.address not in addresses for mock in watch.passage.mocks)

    def _set(self, watch: Watch, found: Passage, text: str) -> None:
        """Note that the redirect stands and was proven."""
        was, watch.probed = watch.passage, time.time()
        watch.passage, watch.failed, watch.pause = found, False, FIRST_PAUSE
        watch.due = self._clock() + self._every
        if was is None or was.redirects != found.redirects:
            watch.since = watch.probed
            pairs = zip(found.mocks, found.redirects, strict=True)
            ways = "; ".join(f"{redirect.endpoint} -> {mock}" for mock, redirect in pairs)
            facts = {"service": watch.service.preset.name, "redirect": ways, "verified": text}
            self._report.success(f"{ways}, {self._firewall.name}, verified {text}", facts)
        watch.text = text

    def _shut(self, watch: Watch, why: str) -> None:
        """Take the redirect out, and leave the address to the guard; what is said is said once."""
        others = tuple(each.passage for each in self._watches if each.passage is not None and each is not watch)
        had, watch.passage, watch.failed = watch.passage, None, False
        if had is not None or watch.text == UNKNOWN:  # one of an earlier sidecar's may stand
            redirects = dict.fromkeys(redirect for one in others for redirect in one.redirects)
            self._apply("nat", rules.redirects(redirects, self._firewall.layout))
        if had is not None or watch.text != why:
            closed = "closed" if self._guard else "not redirected"
            self._report.warning(f"{watch.service.preset.name} is {closed} while there is no mock: {why}")
        if had is not None:
            self.counts["closings"] += 1
            watch.since = time.time()
        watch.text = why

    def _inspect(self) -> None:
        """See that our rules stand as we left them, and put them back where somebody took them out."""
        if self._clock() < self._inspected + self._every:
            return
        self._inspected = self._clock()
        redirects = dict.fromkeys(each for watch in self._watches if watch.passage for each in watch.passage.redirects)
        wanted = {*self._closed, *rules.redirects(redirects, self._firewall.layout)}
        found = self._rules()
        if len(found) == len(wanted) and set(found) == wanted:
            return
        self.counts["repairs"] += 1
        self._report.warning("somebody has changed our firewall rules: they are put back")
        self._apply("filter", self._closed)
        self._apply("nat", rules.redirects(redirects, self._firewall.layout))

    def _rules(self) -> Sequence[Rule | None]:
        return [found.rule for found in self._firewall.installed()]

    def _apply(self, table: str, wanted: tuple[Rule, ...]) -> None:
        try:
            self._firewall.apply(table, wanted, detour.LOCK_PATIENCE)
        except DetourError as error:
            self._report.warning(f"table {table}: {error.reason}; it is tried again")
            self._inspected = self._clock() - self._every + LONGEST_PAUSE

    def _attempt(self) -> Report:
        """Return a report for one attempt: with the time that it may take, and heard in debug alone."""
        return Report("debug" if self._report.log == "debug" else "quiet", Deadline(PATIENCE))
