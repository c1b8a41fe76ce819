"""Fixtures of the tests with hosts in network namespaces."""

from collections.abc import Iterator

import pytest

from tests.support.hosts.cloud import BACKENDS, Cloud
from tests.support.hosts.ip_version import IP_VERSIONS
from tests.support.hosts.network import MOCK, Network, end
from tests.support.hosts.sidecars import SECOND, Sidecars, move
from tests.support.marks import first_quick


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """Give each firewall backend in turn."""
    return str(request.param)


@pytest.fixture
def by_address(network: Network) -> None:
    """Give each start the mock's address, so that it needs no DNS server."""
    network.wanted["MOCK_HOSTNAME"] = MOCK


@pytest.fixture
def chosen(network: Network) -> None:
    """Let each start guard the addresses of MOCK_ENDPOINTS only, so that a listing of its rules is short."""
    network.wanted["MOCK_GUARD"] = "chosen"


@pytest.fixture
def mocked(network: Network) -> Network:
    """Give a network with a mock."""
    network.start_mock("--quiet")
    return network


@pytest.fixture
def ready(mocked: Network) -> Network:
    """Give a network with a mock and a DNS server."""
    mocked.start_dns()
    return mocked


@pytest.fixture(params=first_quick(IP_VERSIONS))
def cloud(request: pytest.FixtureRequest) -> Iterator[Cloud]:
    """Give a network with the fake real service R, and the mocks A and B."""
    with Cloud(request.param) as made:
        yield made


@pytest.fixture
def sidecars(network: Network) -> Iterator[Sidecars]:
    """Start sidecars, and kill them after the test."""
    started = Sidecars(network)
    yield started
    for sidecar in started.made:
        end(sidecar.process)


@pytest.fixture
def moving(network: Network) -> Network:
    """Give a network in which move() changes the mock's address: DNS answers from a file, with TTL 1."""
    network.mock.ip("address", "add", f"{SECOND}/24", "dev", "eth0")
    move(network, MOCK)
    network.start_dns("file:/run/zone")
    return network
