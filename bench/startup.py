"""The time from start to exec with everything ready: wall and processor time, memory, and the stages."""

from __future__ import annotations

import random
import statistics
from typing import TYPE_CHECKING

from bench import subjects
from bench.rows import Row, row
from bench.testbed import MOCK, PORT, Outcome, Testbed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.subjects import Subject

STAGES = {
    "script": (("interpreter", "dig"), ("name", "->"), ("firewall", "+ exec")),
    "imds-detour": (
        ("interpreter, imports, guard", "guard:"),
        ("name", "is at"),
        ("ask the mock", "the mock answers"),
        ("redirect", "redirect:"),
        ("verify", "verified:"),
        ("give up NET_ADMIN", "NET_ADMIN is dropped"),
    ),
}
"""The end of each stage: the first line on stderr with this text. The last stage ends when the app starts."""


FIGURES: tuple[tuple[str, str, Callable[[Outcome], float]], ...] = (
    ("start to exec, verified", "ms", Outcome.to_exec),
    ("processor time of a start", "ms", lambda outcome: outcome.cpu / 1e6),
    ("largest process of a start", "MiB", lambda outcome: outcome.rss / 1024),
)
"""The groups of rows: name, unit and value of a run."""


def measure(rounds: int) -> list[Row]:
    """Return the rows, from the given number of interleaved rounds."""
    script, detours = subjects.script(), subjects.detours()
    forced = [
        subject.using(f"{subject.name}, {name}", MOCK_BACKEND=name) for subject in detours for name in ("legacy", "nft")
    ]
    least = filter(None, [subjects.least(MOCK, PORT)])
    with Testbed() as testbed:
        plain = _rounds(testbed, [script, *detours, *forced, *least], rounds)
    with Testbed(ipv6=True) as testbed:
        with_ipv6 = [subject.using(f"{subject.name}, with IPv6") for subject in detours]
        both = _rounds(testbed, [script, *with_ipv6], rounds)
    rows = []
    for group, unit, figure in FIGURES:
        for outcomes in (plain, both):
            baseline = [figure(outcome) for outcome in outcomes[script.name]]
            for name, runs in outcomes.items():
                if outcomes is both and name == script.name:
                    continue
                reach = {"bundle": 1.0, "pip install": 2.0}.get(name) if unit == "ms" and "start to" in group else None
                samples = [figure(outcome) for outcome in runs]
                against = None if name == script.name else baseline
                rows.append(row(group, name, unit, samples, baseline=against, ratio_at_most=reach))
    return rows


def _rounds(testbed: Testbed, measured: Sequence[Subject], rounds: int) -> dict[str, list[Outcome]]:
    outcomes: dict[str, list[Outcome]] = {subject.name: [] for subject in measured}
    order = list(measured)
    for turn in range(-1, rounds):  # the first round fills caches and does not count
        random.shuffle(order)
        for subject in order:
            testbed.reset()
            outcome = testbed.run(subject, [subjects.tool("stamp")])
            outcome.to_exec()
            if turn >= 0:
                outcomes[subject.name].append(outcome)
    return outcomes


def stages(rounds: int) -> dict[str, list[tuple[str, float]]]:
    """Return the median milliseconds of each stage, by subject."""
    traced = [
        subjects.Subject("script", ("/bin/bash", "-x", *subjects.script().argv[1:])),
        *(subject.using(subject.name, MOCK_LOG="debug") for subject in subjects.detours()),
    ]
    with Testbed() as testbed:
        outcomes = _rounds(testbed, traced, rounds)
    medians = {}
    for name, runs in outcomes.items():
        marks = STAGES.get(name, STAGES["imds-detour"])
        split = [_split(outcome, marks) for outcome in runs]
        labels = [*(label for label, _ in marks), "exec"]
        medians[name] = [
            (label, statistics.median(times)) for label, times in zip(labels, zip(*split, strict=True), strict=True)
        ]
    return medians


def _split(outcome: Outcome, marks: Sequence[tuple[str, str]]) -> list[float]:
    times, last = [], outcome.started
    for _, words in marks:
        when = next(when for when, line in outcome.lines if words in line)
        times.append((when - last) / 1e6)
        last = when
    assert outcome.app is not None
    return [*times, max(0.0, (outcome.app - last) / 1e6)]
