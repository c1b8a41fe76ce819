"""Pauses between attempts and the end of a wait, on a clock of the test."""

import ast
import statistics
import time
from contextlib import nullcontext
from math import inf

import dns.query
import dns.resolver
import pytest

from imds_detour.deadline import FIRST_PAUSE, MAX_PAUSE, MIN_ATTEMPT, MIN_PAUSE, Deadline, until_ready
from imds_detour.discovery.dns import nameservers
from imds_detour.errors import DetourError, NotYetError
from tests.support.marks import first_quick
from tests.unit import test_architecture as architecture


class Clock:
    """A clock that moves only when the test sleeps or works."""

    def __init__(self) -> None:
        self.now = 100.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        """Return the time."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Record the pause and advance the clock."""
        self.pauses.append(seconds)
        self.now += seconds


class Attempts:
    """An attempt that takes a given time and fails until the given number of calls."""

    def __init__(self, clock: Clock, *, takes: float = 0.0, succeed_at: float = inf, questions: int = 1) -> None:
        self._clock = clock
        self._questions = questions
        self._takes = takes
        self._succeed_at = succeed_at
        self.begun: list[float] = []

    def __call__(self) -> str:
        """Make one attempt."""
        self.begun.append(self._clock.now)
        self._clock.now += self._takes
        if len(self.begun) >= self._succeed_at:
            return "there"
        error = NotYetError("lookup", f"failure {len(self.begun)}")
        error.questions = self._questions
        raise error


def pauses(*, succeed_at: float, takes: float = 0.0) -> list[float]:
    """Return the pauses of a wait without a timeout, until the given attempt succeeds."""
    clock = Clock()
    attempts = Attempts(clock, takes=takes, succeed_at=succeed_at)
    assert until_ready(attempts, Deadline(inf, clock), sleep=clock.sleep) == "there"
    return clock.pauses


def test_first_attempt_has_no_pause_and_attempt_time_counts_as_pause() -> None:
    """The first attempt starts at once. One that took longer than the pause is followed by the next at once."""
    assert pauses(succeed_at=1) == []
    assert max(pauses(succeed_at=20, takes=3)) == pytest.approx(MIN_PAUSE)


def test_early_pauses_are_about_19_ms() -> None:
    """In the first seconds no pause is longer than 24 ms, the median is 19 ms, and two waiters differ."""
    early = pauses(succeed_at=50)
    assert pauses(succeed_at=20) != pauses(succeed_at=20)
    assert min(early) >= MIN_PAUSE
    assert max(early) <= FIRST_PAUSE * 1.25
    assert statistics.median(early) == pytest.approx(FIRST_PAUSE, abs=0.006)


def test_pauses_grow_to_a_second_and_a_half() -> None:
    """Pauses grow to one and a half seconds on average, also after thousands, beyond the range of the exponential."""
    for attempts in (1000, 5000):
        grown = pauses(succeed_at=attempts)
        assert statistics.median(grown[-300:]) == pytest.approx(MAX_PAUSE, abs=0.3)
        assert max(grown) <= MAX_PAUSE * 1.25


@pytest.mark.parametrize(("questions", "most"), [(1, 180), (2, 180), (7, 220)])
def test_questions_in_half_a_minute_are_at_most_180(monkeypatch: pytest.MonkeyPatch, questions: int, most: int) -> None:
    """A wait of 30 s asks at most 180 questions, also if an attempt asks several. Control: by 1 %, it asks more."""

    def asked() -> int:
        clock = Clock()
        attempts = Attempts(clock, questions=questions)
        with pytest.raises(NotYetError):
            until_ready(attempts, Deadline(30, clock), sleep=clock.sleep)
        return questions * len(attempts.begun)

    assert 100 <= asked() <= most
    monkeypatch.setattr("imds_detour.deadline.WAITED_SHARE", 0.01)
    assert asked() > 240


@pytest.mark.parametrize("takes", [0.0, 0.003, 0.04, 0.3, 0.7])
def test_wait_ends_at_the_deadline(takes: float) -> None:
    """The wait ends at the deadline with the last error of an attempt that the deadline did not cut short."""
    clock = Clock()
    attempts = Attempts(clock, takes=takes)
    deadline = Deadline(5, clock)
    with pytest.raises(NotYetError) as caught:
        until_ready(attempts, deadline, sleep=clock.sleep)
    cut = attempts.begun[-1] + takes >= deadline.start + 5
    assert caught.value.reason == f"failure {len(attempts.begun) - cut}"
    assert 5 <= deadline.elapsed() <= 5 + takes + 1e-6
    assert all(deadline.start + 5 - begun >= MIN_ATTEMPT - 1e-6 for begun in attempts.begun)


def test_on_failure_gets_each_error_but_the_last_in_order() -> None:
    """on_failure gets each failed attempt's error but one that the deadline cut: no "waiting" line after the end."""
    for takes, succeed_at, seconds, errors in ((0.0, 4, 10, 3), (0.6, inf, 1, 1)):
        clock, heard = Clock(), list[str]()
        with nullcontext() if succeed_at == 4 else pytest.raises(NotYetError, match="failure 1"):
            until_ready(
                Attempts(clock, takes=takes, succeed_at=succeed_at),
                Deadline(seconds, clock),
                on_failure=lambda error, heard=heard: heard.append(error.reason),  # type: ignore[misc]
                sleep=clock.sleep,
            )
        assert heard == [f"failure {number}" for number in range(1, errors + 1)]


@pytest.mark.parametrize("at", [1, 2, 5])
def test_permanent_error_ends_the_wait(at: int) -> None:
    """A DetourError ends the wait at once, from any attempt."""
    clock = Clock()
    attempts = Attempts(clock)

    def attempt() -> str:
        if len(attempts.begun) == at - 1:
            raise DetourError("lookup", "never")
        return attempts()

    with pytest.raises(DetourError, match="never"):
        until_ready(attempt, Deadline(10, clock), sleep=clock.sleep)
    assert len(clock.pauses) == at - 1


def test_deadline_returns_elapsed_and_remaining_time() -> None:
    """elapsed() and remaining() follow the clock from the start, also a past one; no timeout leaves infinity."""
    clock = Clock()
    deadline, endless = Deadline(2, clock), Deadline(inf, clock)
    clock.now += 1.5
    assert (deadline.elapsed(), deadline.remaining()) == (1.5, 0.5)
    assert (deadline.within(1), deadline.within(0.25)) == (0.5, 0.25)
    clock.now += 1
    assert (deadline.remaining(), deadline.within(1), endless.remaining(), endless.within(1)) == (0.0, 0.0, inf, 1)
    assert Deadline(10, clock, start=clock.now - 4).remaining() == 6


def largest_burst(window: float, waiters: int, appears: float) -> float:
    """Start waiters at once, and return the share that arrives in the largest_burst window after the mock appears."""
    arrivals = []
    for _ in range(waiters):
        clock = Clock()
        there = clock.now + appears

        def ask(clock: Clock = clock, there: float = there) -> float:
            if clock.now < there:
                raise NotYetError("probe", "refused")
            return clock.now

        arrivals.append(until_ready(ask, Deadline(600, clock), sleep=clock.sleep))
    return max(sum(start <= other < start + window for other in arrivals) for start in arrivals) / waiters


@pytest.mark.parametrize(("appears", "share"), first_quick([(20, 0.25), (5, 0.75), (60, 0.2)]))
def test_jitter_spreads_waiters(monkeypatch: pytest.MonkeyPatch, appears: float, share: float) -> None:
    """Waiters that start together arrive apart, more so after a longer wait. Negative control: none without jitter."""
    assert largest_burst(0.02, 200, appears) < share
    monkeypatch.setattr("imds_detour.deadline.JITTER", 0.0)
    assert largest_burst(0.02, 200, 20) == 1.0


def test_no_wait_depends_on_the_wall_clock() -> None:
    """The entrypoint reads no wall clock, and dnspython waits by the monotonic one in its place."""
    names = {name for module in architecture.loaded_by_a_start() for name in _attributes(module)}
    assert "time.monotonic" in names  # the control: the search sees such names
    assert names.isdisjoint({"time.time", "time.time_ns", "datetime.now", "time.localtime", "time.gmtime"})
    assert nameservers  # which prepares dnspython
    for module in (dns.query, dns.resolver):
        assert vars(module)["time"].time is time.monotonic


def _attributes(module: str) -> set[str]:
    nodes = ast.walk(architecture.tree(module))
    return {
        f"{node.value.id}.{node.attr}"
        for node in nodes
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
