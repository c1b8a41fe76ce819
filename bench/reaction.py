"""From the moment at which the mock is ready to the app: name late, service late, both late."""

from __future__ import annotations

import random
import time

from bench import subjects
from bench.ground import MOCK, NAME, PORT, Ground
from bench.rows import Row, row

EARLIEST, LATEST = 0.4, 1.6
"""Seconds for which it has been waiting when the mock comes, at random: whatever its beat, each phase of it is met."""
REACH = 25.0


def measure(rounds: int) -> list[Row]:
    """Return the rows; peers get half as many rounds, for they take up to a second each."""
    rows = []
    with Ground() as ground:
        for what, late in (("DNS late", ("dns",)), ("HTTP late", ("http",)), ("both late", ("dns", "http"))):
            for subject in subjects.ours():
                times = [_once(ground, subject, late) for _ in range(rounds)]
                rows.append(row(f"reaction, {what}", subject.name, "ms", times, at_most=REACH))
        for what, late, host in (("DNS late", ("dns",), NAME), ("HTTP late", ("http",), MOCK)):
            for peer in subjects.peers(host, PORT):
                try:
                    times = [_once(ground, peer, late) for _ in range(max(3, rounds // 2))]
                except RuntimeError:
                    continue  # it gives up on a name that does not resolve
                rows.append(row(f"reaction, {what}", peer.name, "ms", times))
        times = [_once(ground, subjects.ours()[0], ("http",), wait=6.0) for _ in range(max(3, rounds // 5))]
        rows.append(row("reaction, HTTP 6 s late", subjects.ours()[0].name, "ms", times))
    return rows


def _once(ground: Ground, subject: subjects.Subject, late: tuple[str, ...], wait: float = 0.0) -> float:
    ground.reset()
    for what in late:
        ground.tell(f"{what} off")
    started = ground.start(subject, [subjects.tool("stamp")])
    until = started / 1e9 + (wait or random.uniform(EARLIEST, LATEST))  # noqa: S311  (a phase, no secret)
    time.sleep(max(0.0, until - time.monotonic()))
    try:
        ready = max(ground.tell(f"{what} on") for what in late)
    finally:
        outcome = ground.wait()
    return outcome.to_exec(since=ready)


def stop(rounds: int) -> list[Row]:
    """Return how long it takes to stop while the resolver hangs, as PID 1: what docker stop waits for."""
    rows = []
    with Ground() as ground:
        ground.tell("dns silent")
        # The script, as PID 1, is deaf to SIGTERM: every run of it takes the whole grace time.
        for subject, count in ((subjects.script(), 1), *((each, rounds) for each in subjects.ours())):
            times = [_stopped(ground, subject) for _ in range(count)]
            rows.append(row("stop while the resolver hangs", subject.name, "ms", times, at_most=_reach(subject)))
    return rows


def _reach(subject: subjects.Subject) -> float | None:
    return None if subject.name == "script" else 100.0


def _stopped(ground: Ground, subject: subjects.Subject) -> float:
    ground.tell("count")
    ground.start(subject, [subjects.tool("stamp")], first=True)
    while not ground.tell("count"):  # it has asked, so it is waiting for the answer
        time.sleep(0.02)
    time.sleep(0.3)
    outcome = ground.stop()
    if outcome.app is not None:
        raise RuntimeError(f"the app of {subject.name} started all the same: {outcome.lines}")
    assert outcome.stopped is not None
    return (outcome.ended - outcome.stopped) / 1e6
