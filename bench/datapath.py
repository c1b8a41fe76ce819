"""The cost of the redirect per request: kernel work alone, a load generator, and an SDK-like client."""

from __future__ import annotations

import os
import re
import shutil
import statistics
import sys
from collections import defaultdict
from dataclasses import dataclass

from bench import subjects
from bench.figures import Spread, quartiles
from bench.paths import PORT, Path, Paths
from bench.rows import Row, row
from bench.testbed import HERE

MODES = {"keep": "keep-alive", "connect": "a connection per request"}
MOCK = os.path.join(os.path.dirname(sys.executable), "imds-detourctl")
URL = "/latest/meta-data/instance-id"
TARGET = 0.95
"""The lowest share of the direct throughput, on a network like Docker's."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Requests per second.

    Attributes:
        wall: per second of the clock, which depends on the machine's load.
        cpu: per second of processor time of client and mock, which does not.

    """

    wall: float
    cpu: float


def measure(worlds: int, *, quick: bool) -> list[Row]:
    """Return the rows, from the given number of new networks. A quick run sends requests on Docker's network only."""
    detour = subjects.installed().argv[0]
    kernel: dict[tuple[str, Path], list[float]] = defaultdict(list)
    rates: dict[tuple[str, str, Path], list[Rate]] = defaultdict(list)
    for _ in range(worlds):
        for mode in MODES:
            # A fresh network for each mode: no connection of an earlier run is left to collide with.
            with Paths(detour) as paths:
                rounds = {"keep": 1000, "connect": 200}[mode]
                columns = paths.cost(subjects.tool("pathcost"), mode, rounds, 10 if quick else 25)
                for path, column in zip(paths.paths, columns, strict=True):
                    kernel[mode, path] += column
            with Paths(detour) as paths:
                paths.serve(MOCK, "mock", "--listen", f"0.0.0.0:{PORT}", "--quiet")
                clients = {"SDK-like client": _sdk, **({"wrk": _wrk} if shutil.which("wrk") else {})}
                for turn in range(1 if quick else 8):
                    for client, rate in clients.items():
                        for number in _rotated(len(paths.paths), turn):
                            if quick and not paths.paths[number].docker:
                                continue
                            rates[client, mode, paths.paths[number]].append(rate(paths, number, mode))
    return [*_computed(rates, kernel), *_requests(rates), *_kernel(kernel)]


def _computed(rates: dict[tuple[str, str, Path], list[Rate]], kernel: dict[tuple[str, Path], list[float]]) -> list[Row]:
    """Return the ratio of throughputs, computed from the kernel's added work and the time of a request.

    The redirect adds little to a request, which the noise of the measured throughput hides. Both inputs of this ratio
    are stable. Without Docker's rules, most of the added work is the kernel's: conntrack becomes active. So those rows
    have no target.
    """
    rows = []
    for (client, mode, path), samples in rates.items():
        if path.backend:
            request = 1e6 / statistics.median(rate.cpu for rate in rates[client, mode, path.direct])
            paired = zip(kernel[mode, path], kernel[mode, path.direct], strict=True)
            added = quartiles([(redirected - straight) / 1000 for redirected, straight in paired])
            ends = [request / (request + microseconds) for microseconds in (added.middle, added.high, added.low)]
            group = f"data path, DNAT over direct, {MODES[mode]}{', Docker network' if path.docker else ''}"
            subject = f"{path.backend}, {client}"
            value = (len(samples), added, Spread(*ends))
            if path.docker:  # users' networks: conntrack is active without imds-detour
                reached = round(ends[0], 2) >= TARGET
                rows.append(Row(group, subject, "us more", *value, f"ratio >= {TARGET}", reached))
            else:
                rows.append(Row(group, subject, "us more", *value))
    return sorted(rows, key=lambda line: line.group)


def _requests(rates: dict[tuple[str, str, Path], list[Rate]]) -> list[Row]:
    rows = []
    for (client, mode, path), samples in rates.items():
        name = f"data path, {client}, {MODES[mode]}{', Docker network' if path.docker else ''}"
        against = rates[client, mode, path.direct] if path.backend else None
        for by_clock in (False, True):
            group, unit = (f"{name}, by the clock", "/s") if by_clock else (name, "/s of CPU")
            values = [rate.wall if by_clock else rate.cpu for rate in samples]
            baseline = [rate.wall if by_clock else rate.cpu for rate in against] if against else None
            rows.append(row(group, path.backend or "direct", unit, values, baseline=baseline))
    return sorted(rows, key=lambda line: line.group)


def _kernel(kernel: dict[tuple[str, Path], list[float]]) -> list[Row]:
    rows = []
    for (mode, path), samples in kernel.items():
        group = f"kernel's work for a request, {MODES[mode]}{', Docker network' if path.docker else ''}"
        microseconds = [nanoseconds / 1000 for nanoseconds in samples]
        against = [nanoseconds / 1000 for nanoseconds in kernel[mode, path.direct]] if path.backend else None
        rows.append(row(group, path.backend or "direct", "us", microseconds, baseline=against))
        if (
            path.docker and not path.backend
        ):  # the kernel's own cost, which a network without conntrack pays in addition
            against = [nanoseconds / 1000 for nanoseconds in kernel[mode, Path("", docker=False)]]
            group = f"kernel's work for a request, {MODES[mode]}"
            rows.append(row(group, "direct, conntrack active", "us", microseconds, baseline=against))
    return sorted(rows, key=lambda line: line.group)


def _rotated(count: int, turn: int) -> list[int]:
    return [(number + turn) % count for number in range(count)]


def _wrk(paths: Paths, number: int, mode: str) -> Rate:
    close = ["-H", "Connection: close"] if mode == "connect" else []
    address, port = paths.to(number)
    output, cpu = paths.work(number, "wrk", "-t", "1", "-c", "4", "-d", "1", *close, f"http://{address}:{port}{URL}")
    match = re.search(r"(\d+) requests in ([\d.]+)s", output)
    if not match or "Non-2xx" in output:
        raise RuntimeError(output)
    return Rate(int(match[1]) / float(match[2]), int(match[1]) / cpu)


def _sdk(paths: Paths, number: int, mode: str) -> Rate:
    address, port = paths.to(number)
    count = 600
    script = os.path.join(HERE, "sdkclient.py")
    output, cpu = paths.work(number, sys.executable, script, address, str(port), mode, str(count))
    took, before = map(int, output.split())
    return Rate(count / (took / 1e9), count / (cpu - before / 1e9))
