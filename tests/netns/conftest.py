"""Fixtures of the tests with hosts in network namespaces."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.hosts.network import MOCK
from tests.support.hosts.sidecars import SECOND, Sidecar, move

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.hosts.network import Network


@pytest.fixture
def sidecars(network: Network) -> Iterator[list[Sidecar]]:
    """Give a list; the sidecars in it are killed after the test."""
    started: list[Sidecar] = []
    yield started
    for sidecar in started:
        sidecar.process.kill()
        sidecar.process.communicate()
    assert network


@pytest.fixture
def zone(network: Network) -> str:
    """Give the path of a file with the mock's address. The DNS server reads it at each question, with TTL 1."""
    network.mock.ip("address", "add", f"{SECOND}/24", "dev", "eth0")
    move(network, MOCK)
    network.start_dns("file:/run/zone")
    return "/run/zone"
