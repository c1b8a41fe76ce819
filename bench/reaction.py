"""The time from the mock's readiness to the app: with a late name, a late service, or both."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from bench import subjects
from bench.rows import Row, row
from bench.testbed import MOCK, NAME, PORT, Testbed

if TYPE_CHECKING:
    from bench.subjects import Subject

EARLY = (0.3, 2.0)
"""Range of the seconds of waiting before the mock appears, at random, so that each phase of a loop is measured."""
KINDS = (("DNS late", ("dns",)), ("HTTP late", ("http",)), ("both late", ("dns", "http")))
REACH = 25.0
"""Milliseconds. Longer waits: waiting.py."""


def measure(rounds: int, *, quick: bool) -> list[Row]:
    """Return the rows; peers, which are slow, get half as many rounds, and none in a quick run."""
    rows = []
    with Testbed() as testbed:
        for what, late in KINDS[: 2 if quick else 3]:
            for subject in subjects.detours():
                times = [react(testbed, subject, late) for _ in range(rounds)]
                rows.append(row(f"reaction, {what}", subject.name, "ms", times, at_most=REACH))
        for what, late, host in (("DNS late", ("dns",), NAME), ("HTTP late", ("http",), MOCK)):
            for peer in () if quick else subjects.peers(host, PORT):
                try:
                    times = [react(testbed, peer, late) for _ in range(max(3, rounds // 2))]
                except RuntimeError:
                    continue  # it does not wait for a name that does not resolve
                rows.append(row(f"reaction, {what}", peer.name, "ms", times))
    return rows


def react(testbed: Testbed, subject: Subject, late: tuple[str, ...], wait: float = 0.0) -> float:
    """Return the ms from the mock's appearance, after ``wait`` seconds or a random time, to the app."""
    testbed.reset()
    for what in late:
        testbed.command(f"{what} off")
    started = testbed.start(subject, [subjects.tool("stamp")])
    until = started / 1e9 + (wait or random.uniform(*EARLY))  # noqa: S311  (a phase, no secret)
    time.sleep(max(0.0, until - time.monotonic()))
    try:
        ready = max(testbed.command(f"{what} on") for what in late)
    finally:
        outcome = testbed.wait()
    return outcome.to_exec(since=ready)


def stop(rounds: int, *, quick: bool) -> list[Row]:
    """Return the time of a stop as PID 1 while the resolver hangs, for which docker stop waits."""
    rows = []
    with Testbed() as testbed:
        testbed.command("dns silent")
        # The script as PID 1 ignores SIGTERM: each run lasts the whole grace period.
        script = [] if quick else [(subjects.script(), 1)]
        for subject, count in (*script, *((subject, rounds) for subject in subjects.detours())):
            times = [_stopped(testbed, subject) for _ in range(count)]
            rows.append(row("stop while the resolver hangs", subject.name, "ms", times, at_most=_reach(subject)))
    return rows


def _reach(subject: Subject) -> float | None:
    return None if subject.name == "script" else 100.0


def _stopped(testbed: Testbed, subject: Subject) -> float:
    testbed.command("count")
    testbed.start(subject, [subjects.tool("stamp")], first=True)
    while not testbed.command("count"):  # it waits for the answer to its question
        time.sleep(0.02)
    time.sleep(0.3)
    outcome = testbed.stop()
    if outcome.app is not None:
        raise RuntimeError(f"the app of {subject.name} started after the stop: {outcome.lines}")
    assert outcome.stopped is not None
    return (outcome.ended - outcome.stopped) / 1e6
