"""The README's figures, from bench/results.json: ``python -m bench.readme`` writes them in after ``make bench``."""

from __future__ import annotations

import json
import os
import re
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


def section(results: dict[str, Any]) -> str:
    """Return the section: a table of medians, each with what was to be reached, and the two plots."""
    rows: Rows = {(each["group"], each["subject"]): each for each in results["rows"]}
    lines = [
        "| median | others | pip install | bundle | wanted |",
        "|---|---|---|---|---|",
        *(_line(rows, *line) for line in LINES),
    ]
    crowd = max(int(group.split()[0]) for group, _ in rows if group.endswith("starts at once"))
    group = f"{crowd} starts at once"
    found = {subject.partition(": ")[2]: row["value"]["middle"] for (of, subject), row in rows.items() if of == group}
    return "\n".join(
        [
            f"{results['machine']}, quiet; ratios are made run by run, side by side. Wanted and not reached: ✗.",
            "",
            *lines,
            "",
            f"{crowd} starts at once against one mock: {found['failed']:g} failed, all done after"
            f" {found['until the last one' + chr(39) + 's exec'] / 1000:.1f} s,"
            f" {found['DNS questions of one']:.1f} DNS questions each.",
            "",
            "![Where a start's time goes: script, pip install, bundle](bench/plots/startup.svg)",
            "",
            "![From the mock's first answer to the app, by tool](bench/plots/reaction.svg)",
            "",
            "",
        ]
    )


LINES = (
    ("start to exec, verified (the script verifies nothing)", "start to exec, verified", "script", "", "ratio"),
    ("the same by nftables", "start to exec, verified", "script", ", nft", "ratio"),
    ("the mock's name appears, to the app", "reaction, DNS late", "wait-for-it (Debian)", "", ""),
    ("the mock listens, to the app", "reaction, HTTP late", "wait-for-it (Debian)", "", ""),
    ("stop while DNS hangs", "stop while the resolver hangs", "script", "", ""),
    ("left running after exec", "left behind after exec", "", "", ""),
    ("sidecar: memory", "sidecar: memory", "", "", ""),
    ("sidecar: processor while nothing happens", "sidecar: processor while idle", "", "", ""),
    ("sidecar: DNS changed, to verified at the new address", "sidecar: DNS changed to verified", "", "", ""),
)
"""What it is called; its group; whom to put beside; how our subjects are marked; whether the ratio is what counts."""


def _line(rows: Rows, name: str, group: str, beside: str, mark: str, kind: str) -> str:
    ours = [rows.get((group, f"{subject}{mark}")) for subject in ("pip install", "bundle")]
    other = f"{_value(rows[group, beside])} ({beside})" if beside else ""
    wanted = next((row["reach"] for row in ours if row and row["reach"]), "")
    cells = (name, other, *(_cell(row, ratio=kind == "ratio") if row else "" for row in ours), wanted)
    return f"| {' | '.join(cells)} |"


def _cell(row: dict[str, Any], *, ratio: bool) -> str:
    times = f" ({row['ratio']['middle']:.2f} ×)" if ratio else ""
    missed = " ✗" if row["reached"] is False else ""
    return f"{_value(row)}{times}{missed}"


def _value(row: dict[str, Any]) -> str:
    value = row["value"]["middle"]
    return f"{value:.2g} {row['unit']}" if value < 1 else f"{value:.0f} {row['unit']}"


if __name__ == "__main__":
    main()
