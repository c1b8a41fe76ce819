"""A network that the tests of a module share. Each test starts its app on the same host."""

from collections.abc import Iterator

import pytest

from tests.support.hosts.network import Network


@pytest.fixture(scope="module")
def running() -> Iterator[Network]:
    """Yield a network with a running mock, for tests that leave nothing in it."""
    with Network() as made:
        made.start_mock("--quiet")  # its log is not read, and would fill the pipe
        yield made
