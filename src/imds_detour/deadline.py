"""How long to wait and how often to try: one deadline for the whole of it, and a backoff between attempts."""

from __future__ import annotations

import time

from imds_detour.errors import NotYetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    Outcome = TypeVar("Outcome")

FIRST_PAUSE = 0.012
"""Seconds between the starts of two attempts at first, on average. A mock next door needs no more, and it costs two
packets: a question of DNS and its answer, or a connection and its refusal."""
TIMEOUT_SHARE = 0.01
"""Of what has been waited already: who has waited for ten seconds does not mind a tenth of one more."""
MAX_PAUSE = 0.5
"""The same on average, once a minute has been waited; an attempt that takes longer is followed by MIN_PAUSE."""
MIN_PAUSE = 0.006
"""Seconds of peace between two attempts, however long they take."""
JITTER = 0.5
"""By how much of itself a pause is longer or shorter, at random, so that many waiters do not ask in step."""
MIN_ATTEMPT = 0.05
"""Seconds that an attempt needs to see anything; with less before the deadline, it is not begun."""


class Deadline:
    """A point on the monotonic clock by which everything must be done.

    Attributes:
        limit: seconds from the start; infinite when the user waits for ever.
        clock: a monotonic clock in seconds.
        start: the clock's reading at the start.

    """

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

    The first call comes at once; tenacity decides about the others. Each failure goes to ``on_failure``,
    but for one that comes when the deadline has passed: that one is raised.

    Raises:
        NotYetError: the last one seen, when the deadline has passed.
        DetourError: whatever else the attempt raises, at once.

    """
    last: NotYetError | None = None
    began = 0.0

    def once() -> Outcome:
        nonlocal last, began
        if last is not None and deadline.remaining() <= 0:
            raise last  # what was seen while there was time says more than an attempt without any
        began = deadline.elapsed()
        try:
            return attempt()
        except NotYetError as error:
            last = error
            if deadline.remaining() > 0:
                on_failure(error)
            raise

    try:
        return once()
    except NotYetError:
        pass

    # Imported when something is late: 25 ms that a start with everything in place does not pay; here they are a part of
    # the first pause.
    import random  # noqa: PLC0415  (see above)

    import tenacity  # noqa: PLC0415  (see above)

    def pause(_state: object = None) -> float:
        # Counted from the start of the attempt: who has listened to silence for half a second asks again soon.
        mean = min(max(FIRST_PAUSE, TIMEOUT_SHARE * deadline.elapsed()), MAX_PAUSE)
        due = began + mean * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311  (chance, no secret)
        seconds = max(MIN_PAUSE, due - deadline.elapsed())
        return seconds if deadline.remaining() - seconds >= MIN_ATTEMPT else deadline.remaining()

    late = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(NotYetError),
        wait=pause,
        stop=lambda _state: deadline.remaining() <= 0,
        sleep=sleep,
        reraise=True,
    )
    sleep(pause())
    return late(once)
