"""Fixtures of the client tests: the place, the case, and the table of results."""

import os
from collections.abc import Iterator

import pytest

from tests.clients import matrix
from tests.clients.cases import Case
from tests.clients.installs import PARTS
from tests.clients.place import Place


@pytest.fixture
def place() -> Iterator[Place]:
    """Yield a place without a mock."""
    with Place() as made:
        yield made


@pytest.fixture
def case(request: pytest.FixtureRequest) -> Case:
    """Return the test's case, or skip the test with the reason if a part is not installed."""
    chosen: Case = request.param
    need(*sorted(chosen.parts))
    return chosen


def need(*parts: str) -> None:
    """Skip the test with the reason if a part is not installed."""
    for part in parts:
        if reason := PARTS[part].missing():
            pytest.skip(reason)


class Table:
    """Collects the results of the tests and writes the table, which is complete after a run of all tests."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._findings: list[matrix.Finding] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Collect the result of a test that belongs to a cell of the table."""
        cell = dict(report.user_properties).get(matrix.KEY)
        if report.when == "call" and cell:
            client, preset, backend, verdict = str(cell).split()
            result = verdict if report.passed else "fails"
            self._findings.append(matrix.Finding(client, preset, backend, result, report.nodeid.rpartition("/")[2]))

    def pytest_sessionfinish(self) -> None:
        """Write the table and the list of its tests."""
        os.makedirs(os.path.dirname(os.path.abspath(self._path)), exist_ok=True)
        with open(self._path, "w") as file:
            file.write(f"{matrix.table(self._findings)}\n{matrix.evidence(self._findings)}")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that writes the table."""
    parser.addoption("--matrix", metavar="FILE", help="write the table of clients, services and backends, as Markdown")


def pytest_configure(config: pytest.Config) -> None:
    """Register the table for --matrix, but not in a worker of pytest-xdist, which reports to the main run."""
    path = config.getoption("--matrix")
    if path and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Table(path))
