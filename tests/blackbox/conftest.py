"""A world that the tests of a module share: its app's host is used again and again, as by a container that restarts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.hosts.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def running() -> Iterator[World]:
    """Give a world whose mock runs; only for tests that need nothing else of it and leave nothing in it."""
    with World() as made:
        made.start_mock("--quiet")  # nobody reads what it logs, and a pipe holds 64 KiB of it
        yield made
