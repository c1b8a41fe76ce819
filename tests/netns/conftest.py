"""Fixtures of the tests between hosts in namespaces."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.hosts.sidecars import SECOND, Sidecar, move
from tests.support.hosts.world import MOCK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.hosts.world import World


@pytest.fixture
def sidecars(world: World) -> Iterator[list[Sidecar]]:
    """Give a list; what is in it at the end is killed."""
    started: list[Sidecar] = []
    yield started
    for sidecar in started:
        sidecar.process.kill()
        sidecar.process.communicate()
    assert world


@pytest.fixture
def zone(world: World) -> str:
    """Give the path of a file with the mock's address, which the DNS server reads at each question, TTL 1."""
    world.mock.ip("address", "add", f"{SECOND}/24", "dev", "eth0")
    move(world, MOCK)
    world.start_dns("file:/run/zone")
    return "/run/zone"
