"""How often to try and when to give up, on a clock of the test's own."""

from __future__ import annotations

import statistics
from math import inf

import pytest

from imds_detour.deadline import FIRST_PAUSE, MAX_PAUSE, MIN_ATTEMPT, MIN_PAUSE, Deadline, until_ready
from imds_detour.errors import DetourError, NotYetError


class Clock:
    """A clock that only sleeping and working move."""

    def __init__(self) -> None:
        self.now = 100.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        """Return the time."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Note the pause, and let it pass."""
        self.pauses.append(seconds)
        self.now += seconds


class Attempts:
    """An attempt that takes its time and fails, until it has been made often enough."""

    def __init__(self, clock: Clock, *, takes: float = 0.0, succeed_at: float = inf) -> None:
        self._clock = clock
        self._takes = takes
        self._succeed_at = succeed_at
        self.begun: list[float] = []

    def __call__(self) -> str:
        """Make one attempt."""
        self.begun.append(self._clock.now)
        self._clock.now += self._takes
        if len(self.begun) >= self._succeed_at:
            return "there"
        raise NotYetError("lookup", f"failure {len(self.begun)}")


def test_the_first_attempt_comes_at_once_and_may_be_the_only_one() -> None:
    """What is there already is not waited for."""
    clock = Clock()
    assert until_ready(Attempts(clock, succeed_at=1), Deadline(10, clock), sleep=clock.sleep) == "there"
    assert clock.pauses == []


def test_the_first_two_seconds_are_looked_through_every_20_ms() -> None:
    """A mock that is a little late is seen at once: no pause is longer than 30 ms, and the middle one is 20."""
    clock = Clock()
    until_ready(Attempts(clock, succeed_at=90), Deadline(inf, clock), sleep=clock.sleep)
    assert min(clock.pauses) >= MIN_PAUSE
    assert max(clock.pauses) <= FIRST_PAUSE * 1.5
    assert statistics.median(clock.pauses) == pytest.approx(FIRST_PAUSE, abs=0.006)


def test_pauses_grow_with_what_has_been_waited_to_half_a_second() -> None:
    """Later attempts are polite: a hundredth of the wait so far, but half a second on average is the most."""
    clock = Clock()
    until_ready(Attempts(clock, succeed_at=1000), Deadline(inf, clock), sleep=clock.sleep)
    assert statistics.median(clock.pauses[-300:]) == pytest.approx(MAX_PAUSE, abs=0.1)
    assert max(clock.pauses) <= MAX_PAUSE * 1.5


def test_a_minute_of_waiting_takes_five_hundred_attempts() -> None:
    """What many waiters cost the DNS server and the mock is bounded: most of it falls into the first seconds."""
    clock = Clock()
    attempts = Attempts(clock)
    with pytest.raises(NotYetError):
        until_ready(attempts, Deadline(60, clock), sleep=clock.sleep)
    assert 350 <= len(attempts.begun) <= 650


def test_pauses_of_two_waiters_differ() -> None:
    """Many containers that start together do not ask in step."""
    one, other = Clock(), Clock()
    for clock in (one, other):
        until_ready(Attempts(clock, succeed_at=20), Deadline(inf, clock), sleep=clock.sleep)
    assert one.pauses != other.pauses


def test_time_spent_on_an_attempt_counts_as_waiting() -> None:
    """Whoever listened to a silent server for half a second asks again at once, not half a second later."""
    clock = Clock()
    until_ready(Attempts(clock, takes=0.6, succeed_at=30), Deadline(inf, clock), sleep=clock.sleep)
    assert max(clock.pauses) == pytest.approx(MIN_PAUSE)


@pytest.mark.parametrize("takes", [0.0, 0.003, 0.04, 0.3, 0.7])
def test_giving_up_comes_at_the_deadline(takes: float) -> None:
    """The wait ends with the last error, not too early, and no attempt begins with too little time to see anything."""
    clock = Clock()
    attempts = Attempts(clock, takes=takes)
    deadline = Deadline(5, clock)
    with pytest.raises(NotYetError) as caught:
        until_ready(attempts, deadline, sleep=clock.sleep)
    assert caught.value.reason == f"failure {len(attempts.begun)}"
    assert 5 <= deadline.elapsed() <= 5 + takes + 1e-6
    assert all(deadline.start + 5 - begun >= MIN_ATTEMPT - 1e-6 for begun in attempts.begun)


def test_every_failure_is_passed_on_in_turn() -> None:
    """Whoever reports the wait hears of each attempt that failed, the first included."""
    clock, heard = Clock(), list[str]()
    until_ready(
        Attempts(clock, succeed_at=4),
        Deadline(10, clock),
        on_failure=lambda error: heard.append(error.reason),
        sleep=clock.sleep,
    )
    assert heard == ["failure 1", "failure 2", "failure 3"]


def test_the_failure_that_ends_the_wait_is_raised_and_not_passed_on() -> None:
    """A line that says "waiting" when nobody waits any more would be untrue."""
    clock, heard = Clock(), list[str]()
    with pytest.raises(NotYetError, match="failure 2"):
        until_ready(
            Attempts(clock, takes=0.6),
            Deadline(1, clock),
            on_failure=lambda error: heard.append(error.reason),
            sleep=clock.sleep,
        )
    assert heard == ["failure 1"]


@pytest.mark.parametrize("at", [1, 2, 5])
def test_an_error_that_time_does_not_heal_ends_the_wait(at: int) -> None:
    """A DetourError goes straight through, from whichever attempt."""
    clock = Clock()
    attempts = Attempts(clock)

    def attempt() -> str:
        if len(attempts.begun) == at - 1:
            raise DetourError("lookup", "never")
        return attempts()

    with pytest.raises(DetourError, match="never"):
        until_ready(attempt, Deadline(10, clock), sleep=clock.sleep)
    assert len(clock.pauses) == at - 1


def test_waiting_for_ever_outlives_every_backoff() -> None:
    """A wait without a limit goes on for thousands of attempts, where the exponential has long left the numbers."""
    clock = Clock()
    until_ready(Attempts(clock, succeed_at=5000), Deadline(inf, clock), sleep=clock.sleep)
    assert max(clock.pauses) <= MAX_PAUSE * 1.5


def test_a_deadline_says_what_is_left() -> None:
    """Elapsed and remaining follow the clock; nothing is left after the end, and everything of for ever."""
    clock = Clock()
    deadline, endless = Deadline(2, clock), Deadline(inf, clock)
    clock.now += 1.5
    assert (deadline.elapsed(), deadline.remaining(), deadline.within(1), deadline.within(0.25)) == (
        1.5,
        0.5,
        0.5,
        0.25,
    )
    clock.now += 1
    assert (deadline.remaining(), deadline.within(1)) == (0.0, 0.0)
    assert (endless.remaining(), endless.within(1)) == (inf, 1)


def test_a_deadline_may_have_started_before() -> None:
    """A start given counts, so that start-up time is part of the user's seconds."""
    clock = Clock()
    assert Deadline(10, clock, start=clock.now - 4).remaining() == 6


def fullest(window: float, waiters: int, appears: float) -> float:
    """Let so many begin at one moment; return the share that comes within the fullest window once the mock is there."""
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


@pytest.mark.parametrize(("appears", "share"), [(5, 0.75), (20, 0.25), (60, 0.2)])
def test_who_began_in_step_is_spread_by_the_jitter(appears: float, share: float) -> None:
    """The longer they wait, the wider; the control is jitter taken away, and then all of them come at once."""
    assert fullest(0.02, 200, appears) < share


def test_without_jitter_all_come_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control to the above."""
    monkeypatch.setattr("imds_detour.deadline.JITTER", 0.0)
    assert fullest(0.02, 200, 20) == 1.0
