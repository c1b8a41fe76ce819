"""The documents' figures from bench/results.json: ``python -m bench.readme`` writes them after ``make bench``."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from typing import Any

from bench.phrases import LANGUAGES, PHRASES
from bench.subjects import HERE, ROOT

BEGIN, END = "<!-- benchmarks -->\n", "<!-- /benchmarks -->"
Row = dict[str, Any]
Rows = dict[tuple[str, str], Row]


def main() -> None:
    """Replace the section between the marks in each document."""
    with open(os.path.join(HERE, "results.json")) as file:
        results = json.load(file)
    for name in LANGUAGES:
        with open(os.path.join(ROOT, name), encoding="utf-8") as file:
            text = file.read()
        with open(os.path.join(ROOT, name), "w", encoding="utf-8") as file:
            file.write(replaced(text, section(results, name)))


def replaced(text: str, new: str) -> str:
    """Return a document with a new section."""
    return re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: BEGIN + new + END, text, flags=re.DOTALL)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the table.

    Attributes:
        name: its key in phrases.py.
        group: its group of rows.
        other: the subject in the column of others; ``PEERS`` for the quickest peer.
        mark: the suffix of imds-detour's subjects.
        times: the key of the text for the ratio to the script, if that counts.

    """

    name: str
    group: str
    other: str = ""
    mark: str = ""
    times: str = ""


DETOURS = ("pip install", "bundle")
START, PEERS = "start to exec, verified", "*"
LINES = (
    Line("start", START, "script", times="of it"),
    Line("nft", START, "script", ", nft", times="of it"),
    # Its ratio is to runs of the script with IPv6, which have no row.
    Line("ipv6", START, mark=", with IPv6", times="of the script"),
    Line("name", "reaction, DNS late", PEERS),
    Line("answer", "reaction, HTTP late", PEERS),
    Line("stop", "stop while the resolver hangs", "script"),
    Line("memory", "sidecar: memory"),
    Line("idle", "sidecar: processor while idle"),
    Line("moved", "sidecar: DNS changed to verified"),
)
PATHS = (
    ("kept", "keep-alive", ""),
    ("each", "a connection per request", ""),
    ("kept, Docker", "keep-alive", ", Docker network"),
    ("each, Docker", "a connection per request", ", Docker network"),
)
"""Keys in phrases.py, with the marks of the data path's groups."""
CLIENTS = {"sdk": "SDK-like client", "wrk": "wrk"}
TARGET = 0.95
"""The target share of the direct throughput."""


def section(results: dict[str, Any], name: str) -> str:
    """Return the section of a document: all figures in those of docs/, the start and the missed targets in a README."""
    made = _Section(results, LANGUAGES[name])
    paragraphs = made.paragraphs() if name.startswith("docs/") else made.summary(name)
    return "\n\n".join(paragraphs) + "\n"


class _Section:
    """The sections in one language."""

    def __init__(self, results: dict[str, Any], language: int) -> None:
        self._machine: str = results["machine"]
        self._rows: Rows = {(row["group"], row["subject"]): row for row in results["rows"]}
        self._language = language

    def _text(self, what: str) -> str:
        return PHRASES[what][self._language]

    def paragraphs(self) -> list[str]:
        """Return the paragraphs of the section with all figures."""
        machine = self._machine.replace("processors", self._text("processors"))
        return [
            self._text("head").format(machine=machine),
            _table(["", self._text("others"), *DETOURS], [self._line(line) for line in LINES]),
            self._throughput(),
            self._about_throughput(),
            self._crowd(),
            f"![{self._text('startup')}](../bench/plots/startup.svg)",
            self._text("about startup"),
            f"![{self._text('reaction')}](../bench/plots/reaction.svg)",
        ]

    def summary(self, readme: str) -> list[str]:
        """Return the paragraphs of a README's section: the lines with a missed target, and the first one."""
        rows = [[self._rows.get((line.group, f"{subject}{line.mark}")) for subject in DETOURS] for line in LINES]
        missed = [
            line
            for line, found in zip(LINES, rows, strict=True)
            if any(row and row["reached"] is False for row in found)
        ]
        lines = list(dict.fromkeys([LINES[0], *missed]))
        lowest = min(
            _ratio(row)
            for client in CLIENTS
            for _, mode, network in PATHS
            for rows in self._paths(client, mode, network)
            for row in rows
        )
        page = next(page for page, language in LANGUAGES.items() if language == self._language and page != readme)
        return [
            _table(["", self._text("others"), *DETOURS], [self._line(line) for line in lines]),
            f"![{self._text('startup')}](bench/plots/startup.svg)",
            self._text("about summary").format(
                lowest=lowest, mark=" ✗" if round(lowest, 2) < TARGET else "", page=page
            ),
        ]

    def _line(self, line: Line) -> list[str]:
        cells = (self._rows.get((line.group, f"{subject}{line.mark}")) for subject in DETOURS)
        return [self._text(line.name), self._other(line), *(self._cell(row, line) if row else "" for row in cells)]

    def _other(self, line: Line) -> str:
        if line.other != PEERS:
            return self._value(self._rows[line.group, line.other], line.other) if line.other else ""
        peers = [row for (group, name), row in self._rows.items() if group == line.group and name not in DETOURS]
        best = min(peers, key=lambda row: float(row["value"]["middle"]))
        return self._value(best, best["subject"] + self._text("quickest").format(count=len(peers)))

    def _cell(self, row: Row, line: Line) -> str:
        return self._value(row, times=self._text(line.times).format(times=row["ratio"]["middle"]) if line.times else "")

    def _value(self, row: Row, subject: str = "", times: str = "") -> str:
        value = row["value"]["middle"]
        digits = ".2g" if value < 1 else ".3g" if value < 100 else ".0f"
        shown = f"{value:{digits}} {row['unit']}"
        return f"{shown}{times}{self._remarks(row, subject, self._text('one') if row['samples'] == 1 else '')}"

    def _remarks(self, row: Row, *remarks: str) -> str:
        """Return the remarks in brackets, and a mark if the target was missed."""
        reach = row["reach"].removeprefix("<= ").replace("ratio <= ", "")
        listed = [self._text("wanted").format(reach=reach) if reach else "", *remarks]
        shown = "; ".join(filter(None, listed))
        return f"{f' ({shown})' if shown else ''}{' ✗' if row['reached'] is False else ''}"

    def _throughput(self) -> str:
        kinds = ("computed", "processor", "clock")
        heads = [f"{self._text(client)}: {self._text(kind)}" for client in CLIENTS for kind in kinds]
        lines = []
        for name, mode, network in PATHS:
            lowest = (min(map(_ratio, rows)) for client in CLIENTS for rows in self._paths(client, mode, network))
            lines.append(
                [self._text(name), *(f"{value:.2f}{' ✗' if round(value, 2) < TARGET else ''}" for value in lowest)]
            )
        return _table([self._text("throughput"), *heads], lines)

    def _paths(self, client: str, mode: str, network: str) -> list[list[Row]]:
        """Return the rows of both backends: computed, by processor time, by the clock."""
        name = CLIENTS[client]
        groups = (
            (f"data path, DNAT over direct, {mode}{network}", f", {name}"),
            (f"data path, {name}, {mode}{network}", ""),
            (f"data path, {name}, {mode}{network}, by the clock", ""),
        )
        return [[self._rows[group, f"{backend}{mark}"] for backend in ("legacy", "nft")] for group, mark in groups]

    def _about_throughput(self) -> str:
        measured = [
            row["ratio"]["high"] - row["ratio"]["low"]
            for client in CLIENTS
            for _, mode, network in PATHS
            for rows in self._paths(client, mode, network)[1:]
            for row in rows
        ]
        return self._text("about throughput").format(width=max(measured))

    def _crowd(self) -> str:
        crowd = max(int(group.split()[0]) for group, _ in self._rows if group.endswith("starts at once"))
        rows = {
            subject.partition(": ")[2]: row
            for (group, subject), row in self._rows.items()
            if group == f"{crowd} starts at once"
        }
        questions = rows["DNS questions of one"]
        return self._text("crowd").format(
            crowd=crowd,
            runs=rows["until the last one's exec"]["samples"],
            failed=rows["failed, of all runs"]["value"]["middle"],
            seconds=rows["until the last one's exec"]["value"]["middle"] / 1000,
            questions=f"{questions['value']['middle']:.1f}",
            wanted=self._remarks(questions),
        )


def _table(heads: list[str], lines: list[list[str]]) -> str:
    rows = (heads, *lines)
    shown = [f"| {' | '.join(row)} |".replace("|  |", "| |") for row in rows]
    return "\n".join([shown[0], f"|{'---|' * len(heads)}", *shown[1:]])


def _ratio(row: Row) -> float:
    return float(row["ratio"]["middle"])


if __name__ == "__main__":
    main()
