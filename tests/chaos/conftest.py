"""The cloud on which the campaign's cases run, and the duration of a start on this machine."""

from collections.abc import Iterator

import pytest

from tests.chaos.contract import Judge, start_up
from tests.support.hosts.cloud import Cloud
from tests.support.hosts.ip_version import V4


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    """Give a network with a good mock, and a real service on the default route whose packets are counted."""
    with Cloud(V4) as cloud:
        cloud.start_mock_everywhere()
        yield Judge(cloud, start_up())
