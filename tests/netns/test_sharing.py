"""Starts and sidecars that share a network namespace, in random orders: no answer of the real service, ever.

Two witnesses ask all the time: an app of each IP version's address that no start redirects too. A redirect that was
verified for an app stays, whatever other starts and sidecars do.
"""

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from signal import SIGKILL, SIGTERM
from typing import Any

import pytest

from tests.support import SUPPORT
from tests.support.hosts.cloud import Program
from tests.support.hosts.network import METADATA, METADATA6, MOCK, PORT, Network
from tests.support.hosts.sidecars import Sidecar
from tests.support.marks import first_quick

ECS = "169.254.170.2"
ADDRESSES = (METADATA, ECS, METADATA6)
ORDERS = int(os.getenv("ORDERS", "0")) or (40 if os.getenv("ALL") == "1" else 3)
"""Random orders of events for each firewall: ORDERS=500 plays a thousand."""
LENGTH = 6
SECOND_PORT = "1339"
REFUSED = "from an earlier start are in nftables"
"""A start with MOCK_BACKEND=legacy fails, before its guard, where nftables redirects already."""


class Shared:
    """A namespace with a mock, a second mock, real services and a witness."""

    def __init__(self, network: Network, backend: str, witness: Program) -> None:
        self.network = network
        self.backend = backend
        self.sidecars: list[Sidecar] = []
        self.verified: set[str] = set()
        self.guarded = False
        network.add_ipv6()
        network.app.ip("route", "add", "default", "via", "fd88::3")
        for address in ADDRESSES:
            network.mock.ip("address", "add", address, "dev", "lo")
        real = (f"R={address},80" for address in ADDRESSES)
        network.start(network.mock, sys.executable, f"{SUPPORT}/servers/identity.py", *real)
        for port in (PORT, SECOND_PORT):
            network.start_mock("--quiet", port=port)
        self.witness = witness

    def settings(self, chance: random.Random, presets: str, **more: str) -> dict[str, Any]:
        """Return the settings of a start that works unless the firewall refuses."""
        backend = chance.choice([self.backend, self.backend, "auto"])
        return {"MOCK_HOSTNAME": MOCK, "MOCK_ENDPOINTS": presets, "MOCK_BACKEND": backend, "MOCK_TIMEOUT": "20", **more}

    def start(self, chance: random.Random) -> str:
        """Start an app; its endpoints are verified from then on."""
        presets = chance.choice(["aws", "ecs", "aws,ecs", "ecs,aws"])
        more = chance.choice([{}, {}, {"MOCK_PORT": SECOND_PORT}, {"MOCK_GUARD": "chosen"}, {"MOCK_GUARD": "off"}])
        done = self.network.detour("true", **self.settings(chance, presets, **more))
        self._note(presets, done.returncode)
        self.guarded |= "MOCK_GUARD" not in more and REFUSED not in done.stderr
        return f"start {presets} {more} -> {done.returncode}"

    def _note(self, presets: str, status: int) -> None:
        if status == 0:
            self.verified |= {METADATA if preset == "aws" else ECS for preset in presets.split(",")}

    def fail(self, chance: random.Random) -> str:
        """Start an app whose mock does not answer, or whose look-up fails."""
        more = chance.choice([{"MOCK_PORT": "9"}, {"MOCK_HOSTNAME": "not-there"}, {"MOCK_PROBE": "/latest/none"}])
        settings = {**self.settings(chance, chance.choice(["aws", "ecs", "aws,ecs"])), "MOCK_TIMEOUT": "0.3", **more}
        done = self.network.detour("true", **settings)
        self.guarded |= REFUSED not in done.stderr
        return f"fail {more} -> {done.returncode}"

    def race(self, chance: random.Random) -> str:
        """Start three apps at once, one of which fails."""
        choices = [
            ({}, "aws"),
            ({"MOCK_PORT": SECOND_PORT}, "aws,ecs"),
            ({"MOCK_PORT": "9", "MOCK_TIMEOUT": "0.3"}, "aws"),
        ]
        chance.shuffle(choices)
        running = [
            (presets, self.network.popen_detour("true", **self.settings(chance, presets, **more)))
            for more, presets in choices
        ]
        for presets, process in running:
            self.guarded |= REFUSED not in process.communicate()[1]
            self._note(presets, process.returncode)
        return f"race -> {[process.returncode for _, process in running]}"

    def stop_waiting(self, chance: random.Random) -> str:
        """Stop a start that waits for its mock."""
        settings = self.settings(chance, "aws,ecs", MOCK_HOSTNAME="not-there", MOCK_LOG="debug")
        with self.network.popen_detour("true", **settings) as process:
            assert process.stderr is not None
            said = next(line for line in process.stderr if "guard: " in line or REFUSED in line)
            self.guarded |= "guard: " in said
            process.send_signal(number := chance.choice([SIGTERM, SIGKILL]))
        return f"stop_waiting {number}"

    def sidecar(self, chance: random.Random) -> str:
        """Start a sidecar, with an interval so short that it reconciles during the next events."""
        presets = chance.choice(["aws", "ecs", "aws,ecs"])
        settings = {**self.settings(chance, presets), "MOCK_TIMEOUT": "unset"}
        self.sidecars.append(started := Sidecar(self.network, "--every", "0.2", **settings))
        self.guarded |= "verified" in started.says(f"verified|another imds-detour|{REFUSED}")
        return f"sidecar {presets}"

    def end_sidecar(self, chance: random.Random) -> str:
        """End a sidecar, if there is one, by a signal that it can handle or not."""
        if not self.sidecars:
            return "no sidecar"
        ended = self.sidecars.pop(chance.randrange(len(self.sidecars)))
        ended.process.send_signal(number := chance.choice([SIGTERM, SIGTERM, SIGKILL]))
        ended.process.communicate()
        return f"end_sidecar {number}"

    def reset(self) -> None:
        """End all sidecars, and remove everything."""
        self.witness.ask()
        for sidecar in self.sidecars:
            sidecar.process.kill()
            sidecar.process.communicate()
        assert self.network.ctl("remove").returncode == 0
        self.sidecars, self.verified, self.guarded = [], set(), False
        assert set(self.witness.ask()["answers"].values()) == {"R"}  # the control: without rules, they are reached


@pytest.fixture
def shared(network: Network, request: pytest.FixtureRequest) -> Iterator[Shared]:
    """Yield a namespace for one firewall."""
    command = (sys.executable, f"{SUPPORT}/clients/witness.py", *ADDRESSES)
    with network.app.popen(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        made = Shared(network, request.param, Program(process))
        yield made
        for sidecar in made.sidecars:
            sidecar.process.kill()
            sidecar.process.communicate()
        made.witness.stop()


@pytest.mark.parametrize("shared", ["legacy", "nft"], indirect=True)
@pytest.mark.parametrize("seed", first_quick(range(4)))
def test_random_orders_of_events_reach_no_real_service(shared: Shared, seed: int) -> None:
    """After the first guard no witness is answered by the real service, and a verified app keeps its mock."""
    events = (
        shared.start,
        shared.start,
        shared.fail,
        shared.race,
        shared.stop_waiting,
        shared.sidecar,
        shared.end_sidecar,
    )
    for number in range(ORDERS):
        chance = random.Random(1000 * seed + number)  # noqa: S311  (repeatable, no secret)
        shared.reset()
        played: list[str] = []
        for _ in range(LENGTH):
            played.append(chance.choice(events)(chance))
            if not shared.guarded:
                continue
            seen = shared.witness.ask("hammer")
            assert seen["real"] == 0, (number, played, seen)
            late = time.monotonic() + 3  # a sidecar whose probe failed may close and open it again
            while {seen["answers"][address] for address in shared.verified} - {"mock"} and time.monotonic() < late:
                seen = shared.witness.ask("hammer")
                assert seen["real"] == 0, (number, played, seen)
            assert {seen["answers"][address] for address in shared.verified} <= {"mock"}, (number, played, seen)
