"""The rows of the table, as values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from bench.figures import Spread, quartiles, ratio

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        group: what was measured.
        subject: of what.
        unit: of the median and its quartiles.
        samples: how many went into it.
        value: median and quartiles.
        ratio: to the group's baseline, run by run, with its 95 % interval.
        reach: the number to reach, in words; empty where there is none.
        reached: whether it was; None where there is nothing to reach.

    """

    group: str
    subject: str
    unit: str
    samples: int
    value: Spread
    ratio: Spread | None = None
    reach: str = ""
    reached: bool | None = None

    def plain(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self)


def row(  # noqa: PLR0913  (keywords that say what they are, one kind of limit a call)
    group: str,
    subject: str,
    unit: str,
    samples: Sequence[float],
    *,
    at_most: float | None = None,
    baseline: Sequence[float] | None = None,
    ratio_at_most: float | None = None,
) -> Row:
    """Return a row made of samples, judged by its median or by its ratio to the baseline."""
    value = quartiles(samples)
    compared = ratio(samples, baseline) if baseline is not None else None
    reach, reached = "", None
    if at_most is not None:
        reach, reached = f"<= {at_most:g} {unit}".rstrip(), value.middle <= at_most
    if ratio_at_most is not None and compared is not None:
        reach, reached = f"ratio <= {ratio_at_most:g}", round(compared.middle, 2) <= ratio_at_most
    return Row(group, subject, unit, len(samples), value, compared, reach, reached)
