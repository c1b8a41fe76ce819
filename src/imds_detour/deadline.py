"""Deadlines, and retries with a backoff until one has passed."""

from __future__ import annotations

import time
from contextlib import suppress

from imds_detour.errors import NotYetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    Outcome = TypeVar("Outcome")

FOREVER = float("inf")
"""Seconds of a deadline that never passes. Not math.inf: the module math is a library of its own to load."""

FIRST_PAUSE, FIRST_SECONDS = 0.019, 2.0
"""Mean seconds for each question of an attempt until the next attempt, in the first seconds of a wait. A question costs
two packets: a DNS query and its reply, or a connection and its refusal."""
WAITED_SHARE = 0.045
"""Later, a pause is this share of what has been waited. So the mean delay, half a pause and the rest of a start, stays
below 3 % of the wait for attempts of one question, and a wait of 30 s costs less than 180 questions."""
MAX_PAUSE = 1.5
"""Mean seconds of the longest pause for a question. An attempt that takes longer is followed by MIN_PAUSE."""
MIN_PAUSE = 0.006
"""Seconds between the end of one attempt and the start of the next, however long attempts take."""
JITTER = 0.25
"""A pause is longer or shorter by up to this share of itself, at random: many waiters do not ask in step."""
MIN_ATTEMPT = 0.05
"""Seconds that an attempt needs to see anything. With less before the deadline, none is started."""


class Deadline:
    """A point on a monotonic clock: ``limit`` seconds after the start, infinite for no limit."""

    __slots__ = ("clock", "limit", "start")

    def __init__(self, limit: float, clock: Callable[[], float] = time.monotonic, start: float | None = None) -> None:
        self.limit = limit
        self.clock = clock
        self.start = clock() if start is None else start

    def elapsed(self) -> float:
        """Return the seconds since the start."""
        return self.clock() - self.start

    def remaining(self) -> float:
        """Return the seconds that are left, 0 when the deadline has passed."""
        return max(0.0, self.limit - self.elapsed())

    def within(self, seconds: float) -> float:
        """Return ``seconds``, or what is left of the deadline where that is less."""
        return min(seconds, self.remaining())


def until_ready(
    attempt: Callable[[], Outcome],
    deadline: Deadline,
    *,
    on_failure: Callable[[NotYetError], None] = lambda _error: None,
    sleep: Callable[[float], None] = time.sleep,
) -> Outcome:
    """Call ``attempt`` until it does not raise NotYetError, and return its outcome.

    The first call comes at once; tenacity times the others. Each failure goes to ``on_failure``, except one that comes
    after the deadline: that one is raised. Any other error of the attempt is raised at once.
    """
    last: NotYetError | None = None
    started = 0.0

    def once() -> Outcome:
        nonlocal last, started
        if last is not None and deadline.remaining() <= 0:
            raise last  # it says more than an attempt without time
        started = deadline.elapsed()
        try:
            return attempt()
        except NotYetError as error:
            if last is not None and deadline.remaining() <= 0:
                raise last from None  # the deadline has cut this attempt short
            last = error
            if deadline.remaining() > 0:
                on_failure(error)
            raise

    def pause() -> float:
        return _pause(started, last.questions if last else 1, deadline)

    with suppress(NotYetError):
        return once()

    import tenacity  # noqa: PLC0415  (costly; only a start that waits needs it, and it is a part of the first pause)

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(NotYetError),
        wait=lambda _state: pause(),
        stop=lambda _state: deadline.remaining() <= 0,
        sleep=sleep,
        reraise=True,
    )
    sleep(pause())
    return retrying(once)


def _pause(started: float, questions: int, deadline: Deadline) -> float:
    """Return the seconds until the next attempt; the last one started at this time, and asked so many questions."""
    import random  # noqa: PLC0415  (costly to import; only a start that waits needs it)

    # Counted from the start of the attempt: after an attempt that took long, the next comes soon.
    waited = deadline.elapsed()
    mean = questions * (FIRST_PAUSE if waited < FIRST_SECONDS else min(WAITED_SHARE * waited, MAX_PAUSE))
    due = started + mean * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311  (chance, no secret)
    seconds = max(MIN_PAUSE, due - deadline.elapsed())
    return seconds if deadline.remaining() - seconds >= MIN_ATTEMPT else deadline.remaining()
