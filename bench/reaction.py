"""The time from the mock's readiness to the app: with a late name, a late service, or both."""

from __future__ import annotations

import random
import time

from bench import subjects
from bench.rows import Row, row
from bench.testbed import MOCK, NAME, PORT, Testbed

EARLIEST, LATEST = 0.4, 1.6
"""Range of the seconds of waiting before the mock appears, at random, so that each phase of a loop is measured."""
REACH = 25.0


def measure(rounds: int) -> list[Row]:
    """Return the rows; peers, which are slow, get half as many rounds."""
    rows = []
    with Testbed() as testbed:
        for what, late in (("DNS late", ("dns",)), ("HTTP late", ("http",)), ("both late", ("dns", "http"))):
            for subject in subjects.detours():
                times = [_once(testbed, subject, late) for _ in range(rounds)]
                rows.append(row(f"reaction, {what}", subject.name, "ms", times, at_most=REACH))
        for what, late, host in (("DNS late", ("dns",), NAME), ("HTTP late", ("http",), MOCK)):
            for peer in subjects.peers(host, PORT):
                try:
                    times = [_once(testbed, peer, late) for _ in range(max(3, rounds // 2))]
                except RuntimeError:
                    continue  # it does not wait for a name that does not resolve
                rows.append(row(f"reaction, {what}", peer.name, "ms", times))
        times = [_once(testbed, subjects.detours()[0], ("http",), wait=6.0) for _ in range(max(3, rounds // 5))]
        rows.append(row("reaction, HTTP 6 s late", subjects.detours()[0].name, "ms", times))
    return rows


def _once(testbed: Testbed, subject: subjects.Subject, late: tuple[str, ...], wait: float = 0.0) -> float:
    testbed.reset()
    for what in late:
        testbed.command(f"{what} off")
    started = testbed.start(subject, [subjects.tool("stamp")])
    until = started / 1e9 + (wait or random.uniform(EARLIEST, LATEST))  # noqa: S311  (a phase, no secret)
    time.sleep(max(0.0, until - time.monotonic()))
    try:
        ready = max(testbed.command(f"{what} on") for what in late)
    finally:
        outcome = testbed.wait()
    return outcome.to_exec(since=ready)


def stop(rounds: int) -> list[Row]:
    """Return the time of a stop as PID 1 while the resolver hangs, for which docker stop waits."""
    rows = []
    with Testbed() as testbed:
        testbed.command("dns silent")
        # The script as PID 1 ignores SIGTERM: each run lasts the whole grace period.
        for subject, count in ((subjects.script(), 1), *((subject, rounds) for subject in subjects.detours())):
            times = [_stopped(testbed, subject) for _ in range(count)]
            rows.append(row("stop while the resolver hangs", subject.name, "ms", times, at_most=_reach(subject)))
    return rows


def _reach(subject: subjects.Subject) -> float | None:
    return None if subject.name == "script" else 100.0


def _stopped(testbed: Testbed, subject: subjects.Subject) -> float:
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
