"""Fixtures of all tests, and two rules: tests run in a sandbox, and a skipped test fails in CI.

Unit tests run anywhere. Docker tests need the engine, so they run outside the sandbox; their containers contact
metadata addresses only on closed networks.
"""

import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator

import hypothesis
import pytest

from imds_detour.ctl.lab import sandbox
from tests.support.hosts.network import Network

# No deadline, since a machine may be busy. No stored examples, so that the checkout stays clean.
hypothesis.settings.register_profile("no-deadline", deadline=None, database=None)
hypothesis.settings.load_profile("no-deadline")

TESTS = os.path.dirname(os.path.abspath(__file__))
ALL = os.getenv("CI") == "true" or os.getenv("ALL") == "1"
"""Whether a run of all tests includes the slow ones."""
QUICK_CASES = 2
"""Cases of one test in a run without the slow ones, but for unit tests: enough for both firewalls."""


def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """Run this command line in a sandbox, unless it is in one or names only tests that need none.

    xdist calls this in its workers too, which are in the sandbox already.
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
    return os.path.relpath(path, TESTS).split(os.sep)[0] not in {"unit", "docker", "podman"}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect slow tests and further cases in a run of everything, and refuse to run outside a sandbox."""
    if not ALL and [os.path.abspath(path) for path in config.args] == [TESTS]:
        cases: Counter[str] = Counter()
        slow = []
        for item in items:
            name = item.nodeid.partition("[")[0]
            if item.get_closest_marker("slow"):
                slow.append(item)
            elif _needs_sandbox(item.path):
                cases[name] += 1
                if cases[name] > QUICK_CASES:
                    slow.append(item)
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in set(slow)]
    if not sandbox.inside() and any(_needs_sandbox(item.path) for item in items):
        raise pytest.UsageError("these tests touch networks and firewalls: run them in a sandbox (CONTRIBUTING.md)")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """Turn a skip into a failure in CI."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]  # pluggy's Result, which the hook's type does not say
    if report.skipped and os.getenv("CI") == "true":
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"


@pytest.fixture(scope="session", autouse=True)
def default_signal_actions() -> None:
    """Reset SIGINT and SIGQUIT, which a shell ignores for a background command."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)


@pytest.fixture
def other_users() -> None:
    """Skip the test in a user namespace that has only root."""
    with open("/proc/self/uid_map") as ids:
        if sum(int(line.split()[2]) for line in ids) == 1:
            pytest.skip("only root's uid is mapped in an unprivileged user namespace; run as root")


@pytest.fixture
def network() -> Iterator[Network]:
    """Yield a mock's host and an app's host, connected, with servers that the test starts."""
    from tests.support.hosts.network import Network  # noqa: PLC0415  (unit tests need none of it)

    with Network() as made:
        yield made
