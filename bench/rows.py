"""The rows of the table."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from bench.figures import Spread, quartiles, ratio

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table.

    Attributes:
        group: the measurement.
        subject: the measured program.
        unit: the unit of the value.
        samples: the number of samples.
        value: median and quartiles.
        ratio: the ratio to the group's baseline, run by run, with its 95 % interval.
        reach: the target as text; empty if there is none.
        reached: whether the target was reached; None if there is none.

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
        """Return the row as a JSON object."""
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
    """Return a row of samples, judged by its median or by its ratio to the baseline."""
    value = quartiles(samples)
    compared = ratio(samples, baseline) if baseline is not None else None
    reach, reached = "", None
    if at_most is not None:
        reach, reached = f"<= {at_most:g} {unit}".rstrip(), value.middle <= at_most
    if ratio_at_most is not None and compared is not None:
        reach, reached = f"ratio <= {ratio_at_most:g}", round(compared.middle, 2) <= ratio_at_most
    return Row(group, subject, unit, len(samples), value, compared, reach, reached)
