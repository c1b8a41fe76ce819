"""The documents' figures from bench/results.json: ``python -m bench.readme`` writes them after ``make bench``."""

from __future__ import annotations

import json
import os
import re
from typing import Any

from bench.lines import CLIENTS, DETOURS, LINES, PATHS, PEERS, PROCESSOR, SAME, TARGET, Line
from bench.phrases import LANGUAGES, PHRASES
from bench.subjects import HERE, LEAST, ROOT
from imds_detour.deadline import FIRST_PAUSE

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


def section(results: dict[str, Any], name: str) -> str:
    """Return the section of a document: all figures in those of docs/, the start and the missed targets in a README."""
    made = _Section(results, LANGUAGES[name])
    paragraphs = made.paragraphs() if name.startswith("docs/") else made.summary(name)
    return "\n\n".join(paragraphs) + "\n"


class _Section:
    """The sections in one language."""

    def __init__(self, results: dict[str, Any], language: int) -> None:
        self._results = results
        self._rows: Rows = {(row["group"], row["subject"]): row for row in results["rows"]}
        # What was not measured has no line.
        self._measured = [path for path in PATHS if (f"data path, wrk, {path[1]}{path[2]}", "nft") in self._rows]
        self._lines = [line for line in LINES if any((line.group, name + line.mark) in self._rows for name in DETOURS)]
        self._language = language

    def _text(self, what: str) -> str:
        return PHRASES[what][self._language]

    def paragraphs(self) -> list[str]:
        """Return the paragraphs of the section with all figures."""
        return [
            self._head(),
            _table(["", self._text("others"), *DETOURS], [self._line(line) for line in self._lines]),
            *filter(None, [self._floors(), self._reaction_floor()]),
            self._throughput(),
            self._about_throughput(),
            *filter(None, [self._waiting()]),
            self._crowd(),
            *filter(None, [self._pods()]),
            f"![{self._text('startup')}](../bench/plots/startup.svg)",
            self._text("about startup"),
            f"![{self._text('reaction')}](../bench/plots/reaction.svg)",
        ]

    def summary(self, readme: str) -> list[str]:
        """Return the paragraphs of a README's section: the first lines, and the other missed targets."""
        rows = [[self._rows.get((line.group, f"{subject}{line.mark}")) for subject in DETOURS] for line in self._lines]
        missed = [
            line
            for line, found in zip(self._lines, rows, strict=True)
            if any(row and row["reached"] is False for row in found)
        ]
        shown = self._lines[:2]
        lowest = min(
            _ratio(row)
            for client in CLIENTS
            for _, mode, network in self._measured
            if self._paths(client, mode, network)[0][0]["reach"]  # the computed rows have the target
            for rows in self._paths(client, mode, network)
            for row in rows
        )
        page = next(page for page, language in LANGUAGES.items() if language == self._language and page != readme)
        return [
            _table(["", self._text("others"), *DETOURS], [self._line(line) for line in shown]),
            *filter(None, [self._missed([line for line in missed if line not in shown])]),
            f"![{self._text('startup')}](bench/plots/startup.svg)",
            self._text("about summary").format(
                lowest=lowest, mark=" ✗" if round(lowest, 2) < TARGET else "", page=page
            ),
        ]

    def _missed(self, lines: list[Line]) -> str:
        """Return the sentence that names these lines; empty without any."""
        listed = "; ".join(self._text(line.name) for line in lines)
        return self._text("missed").format(listed=listed) if lines else ""

    def _head(self) -> str:
        """Return the version, the date and the machine of the run."""
        about = self._text("measured").format(**self._results) if "version" in self._results else ""
        quick = self._text("quick") if self._results["quick"] else ""
        machine = self._results["machine"].replace("processors", self._text("processors"))
        return about + quick + self._text("head").format(machine=machine)

    def _line(self, line: Line) -> list[str]:
        cells = (self._rows.get((line.group, f"{subject}{line.mark}")) for subject in DETOURS)
        return [self._text(line.name), self._other(line), *(self._cell(row, line) if row else "" for row in cells)]

    def _other(self, line: Line) -> str:
        if line.other != PEERS:
            row = self._rows.get((line.group, line.other))
            return self._value(row, line.other) if row else ""
        peers = [row for (group, name), row in self._rows.items() if group == line.group and name not in DETOURS]
        if not peers:
            return ""
        best = min(peers, key=_middle)
        return self._value(best, best["subject"] + self._text("quickest").format(count=len(peers)))

    def _cell(self, row: Row, line: Line) -> str:
        return self._value(row, times=self._text(line.times).format(times=row["ratio"]["middle"]) if line.times else "")

    def _value(self, row: Row, subject: str = "", times: str = "") -> str:
        value = row["value"]["middle"]
        digits = ".3g" if value < 100 else ".0f"
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
        for name, mode, network in self._measured:
            paths = [rows for client in CLIENTS for rows in self._paths(client, mode, network)]
            target = TARGET if paths[0][0]["reach"] else 0.0  # the computed rows have the target
            lowest = (min(map(_ratio, rows)) for rows in paths)
            cells = (f"{value:.2f}{' ✗' if round(value, 2) < target else ''}" for value in lowest)
            lines.append([self._text(name) + ("" if target else self._text("no target")), *cells])
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
            for _, mode, network in self._measured
            for rows in self._paths(client, mode, network)[1:]
            for row in rows
        ]
        return self._text("about throughput").format(width=max(measured))

    def _floors(self) -> str:
        """Return the sentences on the least that a start costs; empty if that was not measured."""
        shares = [
            " / ".join(f"{_ratio(self._rows[group, f'{what} alone, {name}']):.2f}" for group in (SAME, PROCESSOR))
            for name in DETOURS
            for what in LEAST
            if (SAME, f"{what} alone, {name}") in self._rows
        ]
        return self._text("floors").format(*shares) if len(shares) == len(DETOURS) * len(LEAST) else ""

    def _reaction_floor(self) -> str:
        """Return the sentence on the least of a reaction; empty without the stages of a start."""
        work = [
            sum(milliseconds for stage, milliseconds in self._results["stages"][name][2:])
            for name in DETOURS
            if self._results["stages"].get(name)
        ]
        half = FIRST_PAUSE * 1000 / 2
        return self._text("reaction floor").format(half, *work) if len(work) == len(DETOURS) else ""

    def _waiting(self) -> str:
        """Return the sentence on the questions of a long wait; empty if they were not counted."""
        prefix = "questions while waiting "
        rows = [row for (group, _), row in self._rows.items() if group.startswith(prefix)]
        most = {
            kind.lower(): max((row for row in rows if row["subject"].endswith(kind)), key=_middle)
            for kind in ("DNS", "HTTP")
            if rows
        }
        seconds = rows[0]["group"].removeprefix(prefix).split()[0] if rows else ""
        return self._sentence("waiting", most, seconds=seconds)

    def _pods(self) -> str:
        """Return the sentence on many sidecars; empty if they were not measured."""
        group = "60 sidecars at once"
        names = {
            "unready": "not ready",
            "seconds": "until the last one is ready",
            "packets": "packets to the real service",
        }
        rows = {key: self._rows[group, name] for key, name in names.items() if (group, name) in self._rows}
        return self._sentence("pods", rows)

    def _sentence(self, what: str, rows: dict[str, Row], **values: str) -> str:
        """Return a sentence with the median and the target of each row."""
        medians = {name: _middle(row) for name, row in rows.items()}
        marks = {f"{name}_mark": self._remarks(row) for name, row in rows.items()}
        return self._text(what).format(**values, **medians, **marks) if rows else ""

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


def _middle(row: Row) -> float:
    return float(row["value"]["middle"])


def _ratio(row: Row) -> float:
    return float(row["ratio"]["middle"])


if __name__ == "__main__":
    main()
