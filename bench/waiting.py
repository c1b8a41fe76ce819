"""Long waits: the questions of a start that waits for 30 seconds, and the reaction as a share of the wait."""

from __future__ import annotations

import random
import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from bench import reaction, subjects
from bench.rows import Row, row
from bench.testbed import Testbed

if TYPE_CHECKING:
    from bench.subjects import Subject

COUNTERS = (
    "add table inet count; add chain inet count input { type filter hook input priority -300; };"
    " add rule inet count input udp dport 53 counter; add rule inet count input tcp flags syn / syn,ack counter"
)
SECONDS, MOST, TIMED_OUT = 30, 180, 125
LATER, SHARE = (4.0, 16.0), 3.0
"""Range of the seconds of a wait, and the target of the reaction in percent of it."""
SERIES = 3
"""Reactions of a kind at the same time: their median varies by a quarter with 20 samples, because of their phases."""
KINDS = {"no such name": "dns off", "nothing listens": "http off", "503": "http failing"}
"""What the start waits for, and the command that causes it (latecomer.py)."""


def measure(rounds: int) -> list[Row]:
    """Return the rows, from SERIES times ``rounds`` reactions of each kind.

    All wait at the same time, since a wait is a sleep.
    """
    subject = subjects.detours()[-1]  # the bundle, if it is built
    cases = [(late, detour) for late in ("dns", "http") for detour in subjects.detours()]
    with ThreadPoolExecutor(len(KINDS) + SERIES * len(cases)) as executor:
        counts = {kind: executor.submit(_count, subject, command) for kind, command in KINDS.items()}
        series = [
            (late, detour.name, [executor.submit(_shares, detour, late, rounds) for _ in range(SERIES)])
            for late, detour in cases
        ]
        shares = [
            (late, name, [share for future in futures for share in future.result()]) for late, name, futures in series
        ]
    asked = [
        row(f"questions while waiting {SECONDS} s", f"{subject.name}, {kind}: {what}", "", [number], at_most=MOST)
        for kind, future in counts.items()
        for what, number in zip(("DNS", "HTTP"), future.result(), strict=True)
    ]
    return asked + [
        row(f"reaction, {late.upper()} later, relative to the wait", name, "%", samples, at_most=SHARE)
        for late, name, samples in shares
    ]


def _shares(subject: Subject, late: str, rounds: int) -> list[float]:
    """Return the reactions in percent of the wait."""
    samples = []
    with Testbed() as testbed:
        for _ in range(rounds):
            wait = random.uniform(*LATER)  # noqa: S311  (a phase, no secret)
            samples.append(reaction.react(testbed, subject, (late,), wait) / (wait * 1000) * 100)
    return samples


def _count(subject: Subject, command: str) -> tuple[float, float]:
    """Return the questions by DNS, and the connections to the mock."""
    with Testbed() as testbed:
        testbed.command(command)
        testbed.mock.run("nft", COUNTERS)
        outcome = testbed.run(subject, [subjects.tool("stamp")], MOCK_TIMEOUT=str(SECONDS))
        if outcome.status != TIMED_OUT:
            raise RuntimeError(f"no timeout ({outcome.status}): {outcome.lines}")
        listed = testbed.mock.run("nft", "list", "table", "inet", "count").stdout
    dns, http = map(float, re.findall(r"counter packets (\d+)", listed))
    return dns, http
