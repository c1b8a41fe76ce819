"""The time from start to exec with everything ready: wall and processor time, memory, and the stages.

The baseline is the script that does the same work (samework.sh). The original script (baseline.sh) does less, so its
rows have no target.
"""

from __future__ import annotations

import random
import statistics
from typing import TYPE_CHECKING

from bench import subjects
from bench.rows import Row, row
from bench.testbed import NAME, PORT, Outcome, Testbed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from bench.subjects import Subject

STAGES = {
    "script": (
        ("interpreter", "dig"),
        ("name", "-A OUTPUT"),
        ("guard", "ask 1"),
        ("ask the mock", "-t nat"),
        ("redirect", "ask 169"),
        ("verify", "exec setpriv"),
    ),
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

WALL, CPU, MEMORY = "start to exec, same work", "processor time of a start, same work", "largest process of a start"
UNVERIFIED = "start to exec, verified"
"""The group of the rows that compare with the original script, which verifies nothing."""
FIGURES: dict[str, tuple[str, Callable[[Outcome], float]]] = {
    WALL: ("ms", Outcome.to_exec),
    CPU: ("ms", lambda outcome: outcome.cpu / 1e6),
    MEMORY: ("MiB", lambda outcome: outcome.rss / 1024),
}
"""The groups of rows: unit and value of a run."""
TARGETS = {
    (WALL, "bundle"): 0.50,
    (WALL, "bundle, nft"): 0.35,
    (WALL, "pip install"): 0.75,
    (CPU, "bundle"): 0.7,
    (CPU, "bundle, nft"): 0.4,
}
"""The highest ratio to the script that does the same work, without and with IPv6."""

Runs = dict[str, list[Outcome]]


def measure(rounds: int, *, quick: bool) -> list[Row]:
    """Return the rows, from the given number of interleaved rounds."""
    script, detours = subjects.script(), subjects.detours()
    by_nft = [subject.using(f"{subject.name}, nft", MOCK_BACKEND="nft") for subject in detours]
    unverified = subjects.unverified().using("unverified")
    least = subjects.least(NAME, PORT)
    others = [] if quick else [script.using("script, getent", LOOKUP="getent"), *least]
    with Testbed() as testbed:
        plain = _rounds(testbed, [script, *detours, *by_nft, unverified, *others], rounds)
    with Testbed(ipv6=True) as testbed:
        script6 = script.using(script.name, IP6TABLES="ip6tables-legacy")
        both = _rounds(testbed, [script6, *detours, *by_nft, *([] if quick else least)], rounds)
    compared = {script.name: plain.pop(unverified.name)}
    compared.update({subject.name: plain[subject.name] for subject in (*detours, *by_nft)})
    return [*_same_work(plain, ""), *_same_work(both, ", with IPv6"), *_rows(UNVERIFIED, WALL, compared)]


def _same_work(runs: Runs, suffix: str) -> Iterable[Row]:
    for figure in FIGURES:
        yield from _rows(f"{figure}{suffix}", figure, runs, TARGETS)


def _rows(group: str, figure: str, runs: Runs, targets: dict[tuple[str, str], float] | None = None) -> Iterable[Row]:
    """Yield a row for each subject; the first subject is the baseline."""
    unit, value = FIGURES[figure]
    samples = {name: [value(outcome) for outcome in outcomes] for name, outcomes in runs.items()}
    first = next(iter(samples))
    for name, own in samples.items():
        baseline = None if name == first else samples[first]
        reach = (targets or {}).get((figure, name))
        yield row(group, name, unit, own, baseline=baseline, ratio_at_most=reach)


def _rounds(testbed: Testbed, measured: Sequence[Subject], rounds: int) -> Runs:
    outcomes: Runs = {subject.name: [] for subject in measured}
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
