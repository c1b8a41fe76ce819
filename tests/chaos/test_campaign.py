"""Under any fault the app starts verified, or does not start and one true line gives the reason."""

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import pytest

from tests.chaos.cases import DNS, HTTP, OTHER, SYSTEM, Case
from tests.chaos.contract import Ended, Judge
from tests.support.hosts.cloud import BACKENDS, LONG
from tests.support.hosts.network import FAULTY_DNS, FAULTY_HTTP, MOCK, PORT

FAULTY_PORT = "1400"
SHORT = 0.6
"""MOCK_TIMEOUT in seconds, for cases that reach it."""
STRIDE = 1 if LONG else 7
"""Full runs play every case with both firewalls. Others play every seventh, with the firewalls in turn."""


def chosen(table: Mapping[str, Case]) -> list[tuple[str, str]]:
    """Return the cases of a table to play, each with a firewall."""
    if LONG:
        return [(name, backend) for name in table for backend in BACKENDS]
    return [(name, BACKENDS[number % 2]) for number, name in enumerate(list(table)[::STRIDE])]


def played(judge: Judge, case: Case, backend: str, longer: float, start: Callable[..., Ended] | None = None) -> Ended:
    """Play a case, and return the start's end. ``start`` replaces the judge's start."""
    judge.clean()
    judge.cloud.app.write("resolv.conf", case.resolv)
    with ExitStack() as servers:
        servers.enter_context(server(judge, FAULTY_DNS, MOCK, *case.dns))
        port = PORT if case.http is None else FAULTY_PORT
        for address, plan in ((MOCK, case.http), (OTHER, case.second)):
            if plan:
                servers.enter_context(server(judge, FAULTY_HTTP, f"{address}:{FAULTY_PORT}", *plan))
        settings = {"MOCK_TIMEOUT": f"{SHORT * longer:g}", "MOCK_PORT": port, "MOCK_BACKEND": backend, **case.settings}
        return (start or judge.start)(*case.prefix, **settings)


@contextmanager
def server(judge: Judge, script: str, *arguments: str) -> Iterator[None]:
    """Run a server of the tests on the mock's host."""
    process = judge.cloud.mock.popen(
        sys.executable, script, *arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline(), script
            yield
        finally:
            process.kill()


def judged(judge: Judge, case: Case, backend: str) -> Ended:
    """Play a case, assert that the contract is kept, and return the start's end."""
    end = judge.until_kept(lambda longer: played(judge, case, backend, longer), case)
    if case.starts is not None:
        assert (end.status == 0) == case.starts, f"{end}"
    return end


@pytest.mark.slow
@pytest.mark.parametrize(("name", "backend"), [*chosen(DNS), *chosen(HTTP)])
def test_any_dns_or_mock_fault_keeps_the_contract(judge: Judge, name: str, backend: str) -> None:
    """A start keeps the contract with faulty DNS servers, and with mocks that refuse, stall, flood, lie or change."""
    judged(judge, {**DNS, **HTTP}[name], backend)


@pytest.mark.parametrize(("name", "backend"), chosen(SYSTEM))
def test_any_missing_resource_keeps_the_contract(
    request: pytest.FixtureRequest, judge: Judge, name: str, backend: str
) -> None:
    """A start keeps the contract without files, processes, memory, clocks or system calls that it needs."""
    if "processes" in name:
        request.getfixturevalue("other_users")  # root is not bound by that limit
    judged(judge, SYSTEM[name], backend)


def test_unknown_ipv6_support_installs_the_ipv6_guard(judge: Judge) -> None:
    """With /proc/net masked, IPv6 support is unknown, and the IPv6 metadata address is guarded too."""
    assert "ip6 daddr fd00:ec2::254" in judged(judge, SYSTEM["/proc: its net masked"], "nft").left
