"""What tests of clients share: a place to run them in, a plain word where a client is not installed, and the table."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.clients import matrix
from tests.clients.installs import PARTS
from tests.clients.place import Place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.clients.cases import Case


@pytest.fixture
def place() -> Iterator[Place]:
    """Give a place with no mock yet."""
    with Place() as made:
        yield made


@pytest.fixture
def case(request: pytest.FixtureRequest) -> Case:
    """Give the test's case; skip the test and say why where something of it is not installed."""
    chosen: Case = request.param
    need(*sorted(chosen.parts))
    return chosen


def need(*parts: str) -> None:
    """Skip a test and say why where one of these parts is not installed."""
    for part in parts:
        if why := PARTS[part].missing():
            pytest.skip(why)


class Table:
    """Collects what the tests find, and writes the table at the end. Only the run that has all tests makes one."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._findings: list[matrix.Finding] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take what a test says that it backs, or that it failed to."""
        cell = dict(report.user_properties).get(matrix.KEY)
        if report.when == "call" and cell:
            client, preset, backend, verdict = str(cell).split()
            kept = verdict if report.passed else "fails"
            self._findings.append(matrix.Finding(client, preset, backend, kept, report.nodeid.rpartition("/")[2]))

    def pytest_sessionfinish(self) -> None:
        """Write the table, and the tests behind it."""
        os.makedirs(os.path.dirname(os.path.abspath(self._path)), exist_ok=True)
        with open(self._path, "w") as file:
            file.write(f"{matrix.table(self._findings)}\n{matrix.evidence(self._findings)}")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that writes the table."""
    parser.addoption("--matrix", metavar="FILE", help="write the table of clients, services and ways, as Markdown")


def pytest_configure(config: pytest.Config) -> None:
    """Collect for the table where it is wanted; not in a worker of pytest-xdist, whose reports come to the main run."""
    path = config.getoption("--matrix")
    if path and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Table(path))
