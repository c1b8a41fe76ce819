"""Fixtures of every layer, and two rules: tests run in a sandbox, and in CI a skipped test is a failure.

Unit tests touch nothing and run anywhere. The Docker layer needs the engine, so it runs outside the sandbox; its
containers contact metadata addresses only on networks that are closed.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import hypothesis
import pytest

from imds_detour.ctl.lab import sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.hosts.network import Network

# A busy machine is not a fault. No examples are stored: the checkout stays clean.
hypothesis.settings.register_profile("here", deadline=None, database=None)
hypothesis.settings.load_profile("here")

TESTS = os.path.dirname(os.path.abspath(__file__))
ALL = os.getenv("CI") == "true" or os.getenv("ALL") == "1"
"""Whether a run of everything has the slow tests too."""


def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """Run this command line again in a sandbox, unless it is in one or names tests that need none.

    xdist calls this in its workers too; they are in the sandbox by then.
    """
    if sandbox.inside() or not any(
        _needs_sandbox(os.path.join(config.invocation_params.dir, argument.partition("::")[0]))
        for argument in config.args
    ):
        return None
    if reason := sandbox.missing():
        raise pytest.UsageError(f"these tests need a sandbox: {reason}")
    return sandbox.run([sys.executable, "-m", "pytest", *config.invocation_params.args], os.environ)


def _needs_sandbox(path: str | os.PathLike[str]) -> bool:
    """Return whether a file may hold tests that touch networks or firewalls."""
    return os.path.relpath(path, TESTS).split(os.sep)[0] not in {"unit", "docker"}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the slow tests out of a run of everything, and refuse to run outside a sandbox."""
    if not ALL and [os.path.abspath(path) for path in config.args] == [TESTS]:
        left = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in set(left)]
    if not sandbox.inside() and any(_needs_sandbox(item.path) for item in items):
        raise pytest.UsageError(
            "these tests touch networks and firewalls: they run only in a sandbox (CONTRIBUTING.md)"
        )


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """Turn a skip into a failure in CI."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]  # pluggy's Result, which the hook's type does not say
    if report.skipped and os.getenv("CI") == "true":
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"


@pytest.fixture(scope="session", autouse=True)
def stops_as_they_come() -> None:
    """Hand on no ignored SIGINT or SIGQUIT: a shell that runs the tests in the background ignores both."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)


@pytest.fixture
def other_users() -> None:
    """Skip a test that becomes another user where there is none: in the user namespace of an unprivileged run."""
    with open("/proc/self/uid_map") as ids:
        if sum(int(line.split()[2]) for line in ids) == 1:
            pytest.skip("only root's uid is mapped in an unprivileged user namespace; run as root")


@pytest.fixture
def network() -> Iterator[Network]:
    """Give a mock's host and an app's host, joined by a cable, with a mock and a DNS server to start at will."""
    from tests.support.hosts.network import Network  # noqa: PLC0415  (unit tests need none of it)

    with Network() as made:
        yield made
