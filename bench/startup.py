"""Start to exec, with everything in place: wall and processor time, memory, and where the time goes by stage."""

from __future__ import annotations

import random
import statistics
from typing import TYPE_CHECKING

from bench import subjects
from bench.ground import MOCK, PORT, Ground, Outcome
from bench.rows import Row, row

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.subjects import Subject

STAGES = {
    "script": (("interpreter", "dig"), ("name", "->"), ("firewall", "+ exec")),
    "ours": (
        ("interpreter, imports, guard", "guard:"),
        ("name", "is at"),
        ("ask the mock", "the mock answers"),
        ("redirect", "redirect:"),
        ("verify", "verified:"),
        ("give up NET_ADMIN", "NET_ADMIN is dropped"),
    ),
}
"""What ends each stage: the first line on stderr that has these words. The last stage ends when the app starts."""


FIGURES: tuple[tuple[str, str, Callable[[Outcome], float]], ...] = (
    ("start to exec, verified", "ms", Outcome.to_exec),
    ("processor time of a start", "ms", lambda outcome: outcome.cpu / 1e6),
    ("largest process of a start", "MiB", lambda outcome: outcome.rss / 1024),
)
"""The groups of rows: what is taken from each run, and in which unit."""


def measure(rounds: int) -> list[Row]:
    """Return the rows, from so many interleaved rounds."""
    script, ours = subjects.script(), subjects.ours()
    forced = [each.using(f"{each.name}, {name}", MOCK_BACKEND=name) for each in ours for name in ("legacy", "nft")]
    least = filter(None, [subjects.least(MOCK, PORT)])
    with Ground() as ground:
        plain = _rounds(ground, [script, *ours, *forced, *least], rounds)
    with Ground(ipv6=True) as ground:
        six = [each.using(f"{each.name}, with IPv6") for each in ours]
        both = _rounds(ground, [script, *six], rounds)
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


def _rounds(ground: Ground, each: Sequence[Subject], rounds: int) -> dict[str, list[Outcome]]:
    outcomes: dict[str, list[Outcome]] = {subject.name: [] for subject in each}
    order = list(each)
    for turn in range(-1, rounds):  # the first one fills caches, and does not count
        random.shuffle(order)
        for subject in order:
            ground.reset()
            outcome = ground.run(subject, [subjects.tool("stamp")])
            outcome.to_exec()
            if turn >= 0:
                outcomes[subject.name].append(outcome)
    return outcomes


def stages(rounds: int) -> dict[str, list[tuple[str, float]]]:
    """Return how many milliseconds each stage takes, by subject; the median of so many rounds."""
    traced = [
        subjects.Subject("script", ("/bin/bash", "-x", *subjects.script().argv[1:])),
        *(each.using(each.name, MOCK_LOG="debug") for each in subjects.ours()),
    ]
    with Ground() as ground:
        outcomes = _rounds(ground, traced, rounds)
    found = {}
    for name, runs in outcomes.items():
        marks = STAGES.get(name, STAGES["ours"])
        split = [_split(outcome, marks) for outcome in runs]
        labels = [*(label for label, _ in marks), "exec"]
        found[name] = [
            (label, statistics.median(times)) for label, times in zip(labels, zip(*split, strict=True), strict=True)
        ]
    return found


def _split(outcome: Outcome, marks: Sequence[tuple[str, str]]) -> list[float]:
    times, last = [], outcome.started
    for _, words in marks:
        when = next(when for when, line in outcome.lines if words in line)
        times.append((when - last) / 1e6)
        last = when
    assert outcome.app is not None
    return [*times, max(0.0, (outcome.app - last) / 1e6)]
