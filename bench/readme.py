"""The README's figures, from bench/results.json: ``python -m bench.readme`` writes them in after ``make bench``."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from typing import Any

from bench.subjects import HERE, ROOT

README = os.path.join(ROOT, "README.md")
BEGIN, END = "<!-- benchmarks -->\n", "<!-- /benchmarks -->"
Rows = dict[tuple[str, str], dict[str, Any]]


def main() -> None:
    """Write the section between the marks anew."""
    with open(os.path.join(HERE, "results.json")) as file:
        results = json.load(file)
    with open(README, encoding="utf-8") as file:
        text = file.read()
    with open(README, "w", encoding="utf-8") as file:
        file.write(replaced(text, section(results)))


def replaced(text: str, new: str) -> str:
    """Return a README with another section."""
    return re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: BEGIN + new + END, text, flags=re.DOTALL)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the table.

    Attributes:
        name: what it is called.
        group: the group of rows that it shows.
        beside: whom to put beside us.
        mark: what our subjects have behind their names.
        ratio: whether it is the ratio to ``beside`` that counts.

    """

    name: str
    group: str
    beside: str = ""
    mark: str = ""
    ratio: bool = False


START, WAITER = "start to exec, verified", "wait-for-it (Debian)"
LINES = (
    Line("start to exec, verified (the script verifies nothing)", START, "script", ratio=True),
    Line("the same by nftables", START, "script", ", nft", ratio=True),
    Line("from the mock's name to the app, when it comes late", "reaction, DNS late", WAITER),
    Line("from the mock's first answer to the app", "reaction, HTTP late", WAITER),
    Line("stop while DNS hangs", "stop while the resolver hangs", "script"),
    Line("sidecar: memory", "sidecar: memory"),
    Line("sidecar: processor while nothing happens", "sidecar: processor while idle"),
    Line("sidecar: DNS changed, to verified at the new address", "sidecar: DNS changed to verified"),
)
PATHS = (
    ("a kept connection", "keep-alive", ""),
    ("a connection per request", "a connection per request", ""),
    ("a kept connection, Docker network", "keep-alive", ", Docker network"),
    ("a connection per request, Docker network", "a connection per request", ", Docker network"),
)
"""What it is called, and how the data path's groups are marked."""


def section(results: dict[str, Any]) -> str:
    """Return the section: a table of medians, each with what was to be reached, and the two plots."""
    rows: Rows = {(each["group"], each["subject"]): each for each in results["rows"]}
    crowd = max(int(group.split()[0]) for group, _ in rows if group.endswith("starts at once"))
    found = {
        subject.partition(": ")[2]: row["value"]["middle"]
        for (group, subject), row in rows.items()
        if group == f"{crowd} starts at once"
    }
    seconds = found["until the last one's exec"] / 1000
    crowded = (
        f"{crowd} starts at once against one mock: {found['failed']:g} failed, the last app began after"
        f" {seconds:.1f} s; {found['DNS questions of one']:.1f} DNS questions each."
    )
    paragraphs = [
        f"Medians on {results['machine']}; ratios are taken run by run, side by side. ✗: not reached.",
        "\n".join(
            [
                "| | others | pip install | bundle |",
                "|---|---|---|---|",
                *(_line(rows, line) for line in LINES),
            ]
        ),
        "\n".join(
            [
                "| throughput through the redirect, over direct (wanted: 0.95) | a client like an SDK | wrk |",
                "|---|---|---|",
                *(_path(rows, *path) for path in PATHS),
            ]
        ),
        crowded,
        "![Where a start's time goes: script, pip install, bundle](bench/plots/startup.svg)",
        "![From the mock's first answer to the app, by tool](bench/plots/reaction.svg)",
    ]
    return "\n\n".join(paragraphs) + "\n"


def _line(rows: Rows, line: Line) -> str:
    ours = (rows.get((line.group, f"{subject}{line.mark}")) for subject in ("pip install", "bundle"))
    other = f"{_value(rows[line.group, line.beside])} ({line.beside})" if line.beside else ""
    return f"| {' | '.join((line.name, other, *(_cell(row, line) if row else '' for row in ours)))} |"


def _cell(row: dict[str, Any], line: Line) -> str:
    times = f", {row['ratio']['middle']:.2f} of it" if line.ratio else ""
    wanted = f" (wanted: {row['reach'].removeprefix('<= ').replace('ratio <= ', '')})" if row["reach"] else ""
    return f"{_value(row)}{times}{wanted}{' ✗' if row['reached'] is False else ''}"


def _path(rows: Rows, name: str, mode: str, network: str) -> str:
    group = f"data path, DNAT over direct, {mode}{network}"
    cells = (
        min((rows[group, f"{backend}, {client}"] for backend in ("legacy", "nft")), key=_ratio)
        for client in ("SDK-like client", "wrk")
    )
    shown = (f"{_ratio(row):.2f}{' ✗' if row['reached'] is False else ''}" for row in cells)
    return f"| {name} | {' | '.join(shown)} |"


def _ratio(row: dict[str, Any]) -> float:
    return float(row["ratio"]["middle"])


def _value(row: dict[str, Any]) -> str:
    value = row["value"]["middle"]
    return f"{value:.2g} {row['unit']}" if value < 1 else f"{value:.0f} {row['unit']}"


if __name__ == "__main__":
    main()
