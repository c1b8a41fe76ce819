"""Fixtures of every layer, and the two rules of the house: tests run in a sandbox, and in CI nothing is skipped.

The Docker layer is the one exception to the first: it needs the engine, and whatever it asks for at a metadata address
is asked for by a container on a network without a way out.
"""

from __future__ import annotations

import os
import signal
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


ALL = os.getenv("CI") == "true" or os.getenv("ALL") == "1"
THOROUGH = (
    "tests/chaos/",
    "tests/bundle/",
    *(
        f"tests/netns/test_{name}.py"
        for name in (
            *(
                "any_answer",
                "check",
                "concurrency",
                "counted_work",
                "crashes",
                "data_path",
                "doctor",
                "hosts_namespace",
                "identity",
                "ipv6_routes",
                "hidden_proc",
                "last_moment",
                "leaks",
                "lookup",
                "nft_parts",
                "no_helper",
                "pods",
                "routes",
                "rules",
                "sidecar",
                "scale",
            ),
            *("sidecar_ends", "sidecar_long", "sidecar_moves", "sidecar_upkeep", "signals", "swaps", "verification"),
        )
    ),
)
"""What takes more than half of the time: for CI, for ``make test ALL=1``, and for whoever names them."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the long half to CI where nobody asked for it, and keep out of the machine's own network namespace.

    Only unit tests and, by their engine, the Docker tests may run there.
    """
    if not ALL and config.args == ["tests"]:
        left = [item for item in items if any(part in str(item.path) for part in THOROUGH)]
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in set(left)]
    outside = [item for item in items if not any(layer in str(item.path) for layer in ("/unit/", "/tests/docker/"))]
    if outside and not sandbox.inside():
        raise pytest.UsageError(
            "these tests touch networks and firewalls: run them by `make test`, or by"
            " `.venv/bin/python -m imds_detour.ctl.lab.sandbox .venv/bin/python -m pytest ...`"
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
