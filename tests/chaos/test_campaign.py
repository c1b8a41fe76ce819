"""Whatever goes wrong around a start, the app starts verified, or not at all and one true line says why."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.chaos.cases import DNS, HTTP, OTHER, SYSTEM, Case
from tests.support.hosts.cloud import BACKENDS, LONG
from tests.support.hosts.network import FAULTY_DNS, FAULTY_HTTP, MOCK, PORT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.chaos.contract import Ended, Judge

FAULTY_PORT = "1400"
SHORT = 0.6
"""Seconds of MOCK_TIMEOUT where it is meant to pass."""
STRIDE = 1 if LONG else 7
"""In full runs every case is played with both firewalls; else one in seven, with each in turn."""


def chosen(table: Mapping[str, Case]) -> list[tuple[str, str]]:
    """Return the cases of a table to play, each with a firewall."""
    if LONG:
        return [(name, backend) for name in table for backend in BACKENDS]
    return [(name, BACKENDS[number % 2]) for number, name in enumerate(list(table)[::STRIDE])]


@contextmanager
def played(
    judge: Judge, case: Case, backend: str, longer: float, start: Callable[..., Ended] | None = None
) -> Iterator[Ended]:
    """Play a case, and give how the start ended; ``start`` starts in another way than the judge."""
    judge.clean()
    cloud = judge.cloud
    cloud.app.write("resolv.conf", case.resolv)
    with ExitStack() as servers:
        servers.enter_context(server(judge, FAULTY_DNS, MOCK, *case.dns))
        port = PORT if case.http is None else FAULTY_PORT
        for address, plan in ((MOCK, case.http), (OTHER, case.beside)):
            if plan:
                servers.enter_context(server(judge, FAULTY_HTTP, f"{address}:{FAULTY_PORT}", *plan))
        settings = {"MOCK_TIMEOUT": f"{SHORT * longer:g}", "MOCK_PORT": port, "MOCK_BACKEND": backend, **case.settings}
        yield (start or judge.start)(*case.prefix, **settings)


@contextmanager
def server(judge: Judge, script: str, *arguments: str) -> Iterator[None]:
    """Run one of the tests' servers on the mock's host."""
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
    """Play a case and assert that the contract is kept."""
    end = judge.kept(lambda longer: _play(judge, case, backend, longer), case)
    if case.starts is not None:
        assert (end.status == 0) == case.starts, f"{end}"
    return end


def _play(judge: Judge, case: Case, backend: str, longer: float) -> Ended:
    with played(judge, case, backend, longer) as end:
        return end


@pytest.mark.slow
@pytest.mark.parametrize(("name", "backend"), chosen(DNS))
def test_dns(judge: Judge, name: str, backend: str) -> None:
    """Silent, slow, lying, huge, changing and misconfigured DNS."""
    judged(judge, DNS[name], backend)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "backend"), chosen(HTTP))
def test_http(judge: Judge, name: str, backend: str) -> None:
    """Mocks that refuse, stall, flood, lie and change their mind."""
    judged(judge, HTTP[name], backend)


@pytest.mark.parametrize(("name", "backend"), chosen(SYSTEM))
def test_system(request: pytest.FixtureRequest, judge: Judge, name: str, backend: str) -> None:
    """Files, processes, memory, clocks and system calls that a container has not got."""
    if "processes" in name:
        request.getfixturevalue("other_users")  # root is not bound by that limit
    judged(judge, SYSTEM[name], backend)


def test_where_ipv6_cannot_be_seen_it_is_closed(judge: Judge) -> None:
    """With /proc/net masked nobody can tell whether there is IPv6: its metadata address is guarded all the same."""
    end = judged(judge, SYSTEM["/proc: its net masked"], "nft")
    assert "ip6 daddr fd00:ec2::254" in end.left
