"""The work of a start in modules, system calls, processes and DNS questions has ceilings, and no step is missing.

The counts do not depend on the machine's load, with one exception: a DNS reply that takes longer than 0.25 s causes
more work. So a test repeats the start and takes the lowest count. A ceiling is at most 10 % above the count at the time
of writing: lower it when a start needs less.
"""

import sys
from collections.abc import Sequence

import pytest

from tests.support.faults.injection import strace
from tests.support.hosts.network import DETOUR, MOCK, NAME, Network, output
from tests.support.judges.trace import OPTIONS, Work, missing_steps, work
from tests.support.marks import first_quick

CEILINGS = {
    "legacy": Work(modules=75, syscalls=2400, processes=1, programs=0, threads=2),
    "nft": Work(modules=62, syscalls=1760, processes=0, programs=0, threads=2),
}
"""Counts above those of a bare interpreter, in a namespace without IPv6, as in Docker's networks."""
QUESTIONS = 2
"""DNS questions of a start: A and AAAA."""
TRIES = 5
APP = "true"
HALF_THE_LIBRARY = "import argparse, asyncio, email.message, http.client, json, logging, ssl, unittest, urllib.request"
WASTEFUL = (sys.executable, "-c", f"{HALF_THE_LIBRARY}; from imds_detour.bootstrap.pip import main; main()")


def traced(network: Network, *command: str, **settings: str) -> str:
    """Run a command on the app's host under strace and return the trace."""
    network.app.run(
        "sh", "-c", "printf '*filter\\nCOMMIT\\n*nat\\nCOMMIT\\n'|iptables-legacy-restore;nft flush ruleset"
    )
    file = "/run/trace"
    environ = network.settings(None, MOCK_TIMEOUT="25", **settings)
    done = network.app.run(*strace(log=file, children=True, options=OPTIONS), *command, environ=environ, check=False)
    assert done.returncode == 0, done.stderr
    return network.app.run("cat", file).stdout


def lowest_work(network: Network, command: Sequence[str], ceilings: Work, **settings: str) -> Work:
    """Return the work of a start above a bare interpreter; repeat while it is above the ceilings."""
    bare = work(traced(network, sys.executable, "-c", f"import os; os.execlp('{APP}', '{APP}')"), APP)
    for _ in range(TRIES):
        done = work(traced(network, *command, APP, **settings), APP).without(bare)
        if not done.beyond(ceilings):
            break
    return done


@pytest.fixture
def docker_like(ready: Network) -> Network:
    """Give a network with a mock and a DNS server, and without IPv6."""
    ready.without_ipv6()
    return ready


@pytest.mark.parametrize("backend", CEILINGS)
def test_work_of_a_start_is_below_the_ceilings(docker_like: Network, backend: str) -> None:
    """The modules, system calls, processes, programs and threads of a start are below the ceilings."""
    ceilings = CEILINGS[backend]
    done = lowest_work(docker_like, [DETOUR], ceilings, MOCK_BACKEND=backend)
    assert not done.beyond(ceilings), done


@pytest.mark.slow
def test_unneeded_imports_exceed_the_ceilings(docker_like: Network) -> None:
    """Control: a start with unneeded imports exceeds the ceilings of modules and system calls."""
    ceilings = CEILINGS["legacy"]
    done = lowest_work(docker_like, WASTEFUL, ceilings, MOCK_BACKEND="legacy")
    assert {"modules", "syscalls"} <= set(done.beyond(ceilings)), done


def count_questions(network: Network, *plan: str) -> int:
    """Return the number of DNS questions of a start."""
    server = network.start_dns(*plan)
    assert network.detour(APP, MOCK_TIMEOUT="25").returncode == 0
    return len(output(server).splitlines())


def test_start_asks_two_dns_questions(mocked: Network) -> None:
    """A start asks DNS for A and for AAAA. Control: a name that does not exist at first causes more questions."""
    mocked.without_ipv6()
    assert any(count_questions(mocked) <= QUESTIONS for _ in range(TRIES))
    assert count_questions(mocked, "NXDOMAIN", f"{NAME}={MOCK}") > QUESTIONS


@pytest.mark.parametrize(
    ("setting", "steps"),
    first_quick(
        [
            ({}, []),
            ({"MOCK_GUARD": "off"}, ["guard", "order"]),
            ({"MOCK_PROBE": "off"}, ["comparison", "counter", "order"]),
            ({"MOCK_KEEP_NET_ADMIN": "1"}, ["NET_ADMIN", "order"]),
        ]
    ),
)
def test_start_includes_every_step(docker_like: Network, setting: dict[str, str], steps: list[str]) -> None:
    """A start makes each step from the guard to dropping NET_ADMIN. Control: the trace shows a step that is off."""
    # A slow machine makes a start repeat steps.
    traces = (traced(docker_like, DETOUR, APP, MOCK_BACKEND="legacy", **setting) for _ in range(TRIES))
    assert any(missing_steps(trace, APP) == steps for trace in traces)


def test_start_that_succeeds_loads_no_advice(docker_like: Network, backend: str) -> None:
    """A start that succeeds loads neither the advice nor difflib. Control: a misspelt setting makes it load both."""
    for settings, loaded in (({}, False), ({"MOCK_PROT": "1"}, True)):
        trace = traced(docker_like, DETOUR, APP, MOCK_BACKEND=backend, **settings)
        assert [name in trace for name in ("/imds_detour/advice/", "/difflib")] == [loaded, loaded]
