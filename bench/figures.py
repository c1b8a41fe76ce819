"""Statistics of samples: median, quartiles, and a ratio with its interval."""

from __future__ import annotations

import random
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

RESAMPLES = 2000
"""The number of bootstrap resamples, enough for a stable interval."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A median with an interval.

    Attributes:
        middle: the median.
        low: the first quartile, or the lower end of the interval.
        high: the third quartile, or the upper end of the interval.

    """

    middle: float
    low: float
    high: float


def quartiles(samples: Sequence[float]) -> Spread:
    """Return the median with the first and the third quartile."""
    if len(samples) < 2:
        return Spread(samples[0], samples[0], samples[0])
    low, middle, high = statistics.quantiles(samples, n=4, method="inclusive")
    return Spread(middle, low, high)


def ratio(over: Sequence[float], under: Sequence[float]) -> Spread:
    """Return the median of the pairwise ratios, with its 95 % interval by bootstrap."""
    pairs = [first / second for first, second in zip(over, under, strict=True)]
    draw = random.Random(169)  # noqa: S311  (the same interval for the same samples)
    medians = sorted(statistics.median(draw.choices(pairs, k=len(pairs))) for _ in range(RESAMPLES))
    return Spread(statistics.median(pairs), medians[RESAMPLES // 40], medians[-RESAMPLES // 40])
