"""The sidecar over time: many moves of the mock under load, many rounds, and its cost while idle."""

import os
import re
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator

import pytest

from tests.support.hosts import sidecars
from tests.support.hosts.cloud import BACKENDS, LONG, Cloud
from tests.support.hosts.ip_version import IP_VERSIONS
from tests.support.hosts.network import PORT
from tests.support.hosts.sidecars import Sidecar, Sidecars, until
from tests.support.judges.rules_listing import all_rules
from tests.support.marks import first_quick

MOVES = 100 if LONG else 12
ROUNDS = 100_000 if LONG else 300
"""Rounds without a pause. With a pause of five seconds, 100,000 take six days."""
IDLE = 60 if LONG else 5
"""Seconds for which an idle sidecar is measured."""


@pytest.fixture(params=first_quick(IP_VERSIONS))
def cloud(request: pytest.FixtureRequest) -> Iterator[Cloud]:
    """Give a network with a real service, mocks at two addresses, and a DNS server that names one of them."""
    with Cloud(request.param) as cloud:
        sidecars.move(cloud, cloud.ip.mock)
        log = cloud.start_dns("file:/run/zone").stdout
        # The server writes a line for each question, and would block on a full pipe.
        threading.Thread(target=deque, args=(log, 0), daemon=True).start()
        cloud.start_mock_everywhere()
        yield cloud


def end(sidecar: Sidecar) -> None:
    """Stop the sidecar, and assert that it ends without an error."""
    sidecar.process.terminate()
    _, rest = sidecar.process.communicate(timeout=30)
    assert (sidecar.process.returncode, "Traceback" in rest) == (0, False), rest


def move(cloud: Cloud, started: Sidecar, address: str) -> float:
    """Change the name's address, and return the seconds until the redirect to it is verified."""
    sidecars.move(cloud, address)
    changed = time.monotonic()
    started.process.send_signal(signal.SIGHUP)  # for speed: test_sidecar.py tests the TTL
    started.says(rf"{re.escape(cloud.ip.at(address, PORT))}\).*verified")
    return time.monotonic() - changed


@pytest.mark.parametrize("backend", first_quick(BACKENDS))
def test_no_packet_leaves_while_the_mock_moves(cloud: Cloud, backend: str) -> None:
    """During many moves of the mock, a flood of every protocol reaches a mock or is refused."""
    started = Sidecars(cloud).start(MOCK_BACKEND=backend)
    before = cloud.seen()
    flood = cloud.flood()
    seconds = [move(cloud, started, (cloud.ip.other, cloud.ip.mock)[probe_often % 2]) for probe_often in range(MOVES)]
    outcomes = flood.ask("5")
    print(f"{backend}: {MOVES} moves, median {sorted(seconds)[MOVES // 2]:.3f} s")  # noqa: T201  (figures, for -rP)
    assert (outcomes["udp"], outcomes["icmp"], outcomes["other"]) == (["EPERM"],) * 3
    assert outcomes["tcp 8080"] == ["ECONNREFUSED"]
    assert set(outcomes["tcp 80"]) <= {"sent", "ECONNREFUSED"}
    assert cloud.seen() == before
    end(started)


def test_capture_detects_the_flood_without_a_guard(cloud: Cloud) -> None:
    """Negative control: with MOCK_GUARD=off the same flood reaches the real service."""
    started = Sidecars(cloud).start(MOCK_GUARD="off")
    before = cloud.seen()
    cloud.flood().ask("5")
    assert cloud.seen() != before
    end(started)


@pytest.mark.slow
def test_many_rounds_do_not_grow_memory_descriptors_or_rules(cloud: Cloud, backend: str) -> None:
    """Each round probes, reads the rules and, each second, looks up the name; none of them leaks."""
    started = Sidecars(cloud).start("--every", "0.1", MOCK_BACKEND=backend)
    pid = started.process.pid
    probe_often(cloud, started, 100)  # by now all modules are imported
    first, memory = all_rules(cloud.app), resident(pid)
    files = [descriptors(pid) for _ in range(20)]  # a probe or the status socket opens one at times
    probe_often(cloud, started, ROUNDS)
    assert all_rules(cloud.app) == first
    assert until(lambda: descriptors(pid), lambda count: count <= max(files)) <= max(files)
    assert resident(pid) - memory < 1024, f"KiB more than {memory} after {ROUNDS} rounds"
    end(started)


@pytest.mark.slow
def test_idle_sidecar_costs_little(cloud: Cloud) -> None:
    """Memory and processor time of an idle sidecar stay under wide limits; see bench/NOTES.md for exact ones."""
    started = Sidecars(cloud).start()
    pid = started.process.pid
    used = sidecars.share(pid, IDLE)
    print(f"resident {resident(pid)} KiB, processor {used:.2%} over {IDLE} s")  # noqa: T201  (figures, for -rP)
    assert resident(pid) < 40 * 1024
    assert used < 0.02
    end(started)


def probe_often(cloud: Cloud, started: Sidecar, rounds: int) -> None:
    """Cause this many probes, counted by the redirect's counter."""
    goal = probes(cloud) + rounds
    while (left := goal - probes(cloud)) > 0:
        for _ in range(max(20, left)):
            started.process.send_signal(signal.SIGHUP)
            time.sleep(0.002)  # the kernel merges pending signals


def probes(cloud: Cloud) -> int:
    """Return the number of connections that the rule has redirected."""
    return sum(map(int, re.findall(r'"connections": (\d+)', cloud.ctl("status", "--json").stdout)))


def descriptors(pid: int) -> int:
    """Return the number of open files of a process."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def resident(pid: int) -> int:
    """Return a process's resident memory in KiB."""
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
