"""The table as text."""

from __future__ import annotations

import os
import platform
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.rows import Row


def text(rows: Sequence[Row], missing: Sequence[str], about: str) -> str:
    """Return the table, the missed targets, and the list of what was not measured."""
    lines = [about, f"{'':44} {'median':>10}  {'quartiles':>17}  {'ratio':>5} {'95 % interval':>14}   to reach"]
    for group in dict.fromkeys(row.group for row in rows):
        lines += ["", group, *(_line(row) for row in rows if row.group == group)]
    judged = [row for row in rows if row.reached is not None]
    missed = [row for row in judged if not row.reached]
    lines += ["", f"targets: {len(judged) - len(missed)} of {len(judged)} reached"]
    lines += [f"MISSED: {row.group}: {' '.join(_line(row).split())}" for row in missed]
    return "\n".join([*lines, "", *(f"not measured: {what}" for what in missing), ""])


def machine() -> str:
    """Return a description of the machine, with its load."""
    load = os.getloadavg()
    with open("/proc/cpuinfo") as file:
        model = re.search(r"^model name\s*: (.*)", file.read(), re.MULTILINE)  # arm64 gives none
    name = f"{model[1]}, " if model else ""
    return f"{name}{os.cpu_count()} processors, Linux {platform.release()}, load {load[0]:.1f}"


def _line(row: Row) -> str:
    quartiles = f"{row.value.low:.4g} .. {row.value.high:.4g}" if row.samples > 1 else ""
    compared, interval = "", ""
    if row.ratio is not None:
        compared = f"{row.ratio.middle:.2f}"
        interval = f"{row.ratio.low:.2f} .. {row.ratio.high:.2f}"
    verdict = "" if row.reached is None else f"{row.reach}: {'reached' if row.reached else 'MISSED'}"
    value = f"{row.value.middle:.4g} {row.unit}".strip()
    return f"  {row.subject:42} {value:>10}  {quartiles:>17}  {compared:>5} {interval:>14}   {verdict}".rstrip()
