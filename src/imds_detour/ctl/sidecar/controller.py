"""The one who follows: probes each redirect, swaps it when the mock moves, closes it when the mock is gone."""

from __future__ import annotations

import time
from contextlib import ExitStack, suppress
from math import inf
from typing import TYPE_CHECKING

from imds_detour.ctl.sidecar.prober import Questions
from imds_detour.ctl.sidecar.service_status import FIRST_PAUSE, HABITS, UNKNOWN, Habits, Watch
from imds_detour.ctl.sidecar.signals import StoppedError
from imds_detour.ctl.sidecar.state import State
from imds_detour.errors import DetourError
from imds_detour.redirect import install_redirects

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imds_detour.ctl.sidecar.names import FollowedNames
    from imds_detour.ctl.sidecar.reconciler import Upkeep
    from imds_detour.ctl.sidecar.signals import Wake
    from imds_detour.log import Log
    from imds_detour.result import Target

SECOND_LOOK = 0.2
"""Seconds until a probe that failed is repeated; only the second failure closes the redirect."""
MAX_PAUSE, GROWTH = 1.0, 1.5
"""Seconds from one search for a mock that is not there to the next, at most, and each over the last (FIRST_PAUSE)."""
SETTLING = 10.0
"""Seconds for which mocks are searched for over an IP version that has just come: its addresses and routes come one by
one, and none is valid before the kernel has seen that nobody else has it (RFC 4862, duplicate address detection)."""


class Follower:
    """Holds a redirect for each service whose mock is there."""

    def __init__(self, upkeep: Upkeep, names: FollowedNames, wake: Wake, log: Log, habits: Habits = HABITS) -> None:
        """Know what there is; nothing is looked for yet."""
        self._upkeep = upkeep
        self._names = names
        self._wake = wake
        self._log = log
        self._questions = Questions(upkeep, names, wake, log)
        self._every = habits.every
        self._clock = habits.clock
        self._watches = [Watch(service) for service in upkeep.environment.services]
        self._settled = -inf
        self._started = time.time()
        self.counts = dict.fromkeys(("probe_failures", "swaps", "closings"), 0)

    def step(self) -> float:
        """Do what is due, and return the seconds until something is due again. A stop ends it at once."""
        if self._upkeep.widened():
            self._settled = self._clock() + SETTLING
            for watch in self._watches:
                watch.moved, watch.search_due = watch.target is not None, self._clock()
        self._upkeep.reconcile(self._targets())
        with suppress(StoppedError):
            for watch in self._watches:
                self._look(watch)
        due = min(self._upkeep.due, *map(self._due, self._watches))
        return max(0.0, due - self._clock())

    def look_again(self) -> None:
        """Let everything be due now."""
        for watch in self._watches:
            watch.due, watch.search_due, watch.pause = 0.0, 0.0, FIRST_PAUSE
            self._names.invalidate(watch.service.mock.host)
        self._upkeep.look_again()

    def state(self) -> State:
        """Return what is known now."""
        lookups = {"lookups": self._names.lookups, "lookup_failures": self._names.failures}
        return State(
            tuple(watch.state() for watch in self._watches),
            self._upkeep.firewall.name,
            time.time(),
            self._started,
            {**self.counts, "probes": self._questions.probes, "repairs": self._upkeep.repairs, **lookups},
            guarded=self._upkeep.guarded,
        )

    def _due(self, watch: Watch) -> float:
        """Return when there is something to do for a service, on the clock."""
        if watch.target is None:
            return watch.due
        # Whether it has moved shows when its name is looked up again; whoever knows that it has does not wait for that.
        search = watch.search_due
        return min(watch.due, search if watch.moved else max(search, self._names.due(watch.service.mock.host)))

    def _look(self, watch: Watch) -> None:
        with self._wake.breakable():
            pass  # a stop that came while others were looked at
        if watch.target is None:
            if self._clock() >= watch.due:
                self._search(watch)
        elif self._clock() >= watch.search_due and self._moved(watch):
            self._search(watch)
        elif self._clock() >= watch.due:
            self._probe(watch)

    def _search(self, watch: Watch) -> None:
        """Look for the mock once, and lead to it if it is there and not where we lead to already."""
        try:
            led = [(watch, self._questions.find(watch.service))]
            if watch.target is None or led[0][1].redirects != watch.target.redirects:
                led += self._companions(watch, led[0][1])
                self._install_redirects(led)
            for each, target in led:
                each.moved, each.search_due = self._clock() < self._settled, self._clock() + MAX_PAUSE
                self._set(each, target, ", ".join(dict.fromkeys(str(mock.identity) for mock in target.mocks)))
        except DetourError as error:
            pause, watch.pause = watch.pause, min(watch.pause * GROWTH, MAX_PAUSE)
            watch.search_due = self._clock() + pause
            if watch.target is not None and self._still_there(watch):
                return
            self._names.invalidate(watch.service.mock.host)
            self._shut(watch, error.reason)
            watch.due = self._clock() + pause

    def _companions(self, watch: Watch, found: Target) -> list[tuple[Watch, Target]]:
        """Find those who share an address with a service, and with it their mock: where it goes, they go along.

        Raises:
            DetourError: when one of them does not answer there: as long as it does where it was, nobody moves.

        """
        mocks = {redirect.endpoint: redirect.mock for redirect in found.redirects}
        along = []
        for each in self._watches:
            if each is watch or each.target is None:
                continue
            if all(mocks.get(redirect.endpoint, redirect.mock) == redirect.mock for redirect in each.target.redirects):
                continue
            try:
                along.append((each, self._questions.find(each.service)))
            except DetourError as error:
                each.due = self._clock()  # whether it does is seen at once: if not, its redirect is in nobody's way
                reason = f"{each.service.preset.name} shares its address and is not there: {error.reason}"
                raise DetourError(error.step, reason, error.remedy) from None
        return along

    def _install_redirects(self, led: Sequence[tuple[Watch, Target]]) -> None:
        """Swap redirects in one commit, and prove them; what does not prove is taken out.

        Raises:
            DetourError: when the kernel refuses, or it is not the mock that answers through it.

        """
        moving = [watch for watch, _ in led]
        others = [each.target for each in self._watches if each.target is not None and each not in moving]
        try:
            with ExitStack() as undo:
                found = [target for _, target in led]
                install_redirects(self._upkeep.firewall, (*others, *found), undo, self._questions.attempt())
                for target in found:
                    self._questions.verify(target)
                undo.pop_all()
        except DetourError:
            self._upkeep.invalidate()
            raise
        self.counts["swaps"] += sum(watch.target is not None for watch in moving)

    def _probe(self, watch: Watch) -> None:
        """Ask through the metadata address; one failure is looked at again, the second one closes."""
        assert watch.target is not None  # noqa: S101  (whoever has none is searched for)
        try:
            seen = self._questions.verify(watch.target)
        except DetourError as error:
            self.counts["probe_failures"] += 1
            self._names.invalidate(watch.service.mock.host)
            watch.probed = time.time()
            if not watch.failed:
                watch.failed, watch.due = True, self._clock() + SECOND_LOOK
                return
            self._shut(watch, error.reason)
            watch.due = self._clock()
        else:
            self._set(watch, watch.target, seen)

    def _still_there(self, watch: Watch) -> bool:
        """Whether a mock whose name leads elsewhere by now, where none is, goes on to answer where it was."""
        pause = watch.pause
        if self._clock() >= watch.due:
            self._probe(watch)
            watch.pause = pause
        return watch.target is not None

    def _moved(self, watch: Watch) -> bool:
        """Whether the name leads to other addresses by now than to those where the mock is."""
        assert watch.target is not None  # noqa: S101  (as above)
        try:
            addresses = self._questions.addresses(watch.service)
        except DetourError:
            return watch.moved  # as long as it proves to be the mock, what DNS says of it does not count
        watch.moved = watch.moved or any(mock.endpoint.address not in addresses for mock in watch.target.mocks)
        return watch.moved

    def _set(self, watch: Watch, found: Target, text: str) -> None:
        """Note that the redirect stands and was proven."""
        was, watch.probed = watch.target, time.time()
        watch.target, watch.failed, watch.pause = found, False, FIRST_PAUSE
        watch.due = self._clock() + self._every
        if was is None or was.redirects != found.redirects:
            watch.since = watch.probed
            pairs = zip(found.mocks, found.redirects, strict=True)
            ways = "; ".join(f"{redirect.endpoint} -> {mock}" for mock, redirect in pairs)
            facts = {"service": watch.service.preset.name, "redirect": ways, "verified": text}
            self._log.success(f"{ways}, {self._upkeep.firewall.name}, verified {text}", facts)
        watch.text = text

    def _shut(self, watch: Watch, why: str) -> None:
        """Take the redirect out, and leave the address to the guard; what is said is said once."""
        had, watch.target, watch.failed, watch.moved = watch.target, None, False, False
        if had is not None or watch.text == UNKNOWN:  # one of an earlier sidecar's may stand
            self._upkeep.redirect(self._targets())
        if had is not None or watch.text != why:
            closed = "closed" if self._upkeep.guarded else "not redirected"
            self._log.warning(f"{watch.service.preset.name} is {closed} while there is no mock: {why}")
        if had is not None:
            self.counts["closings"] += 1
            watch.since = time.time()
        watch.text = why

    def _targets(self) -> tuple[Target, ...]:
        return tuple(watch.target for watch in self._watches if watch.target is not None)
