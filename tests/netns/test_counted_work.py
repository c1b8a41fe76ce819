"""A start does little, counted in modules, system calls, processes and DNS questions; and leaves no step out.

Counts are the same on a busy machine as on an idle one, but for one thing: where an answer of DNS takes a quarter of a
second, more is done to get it. So a start may try again, and the least that it did counts. A ceiling is some 10 % above
what was counted when it was written: lower it when a start gets leaner.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.faults.injection import strace
from tests.support.hosts.network import DETOUR, MOCK, NAME
from tests.support.judges.trace import OPTIONS, Work, missing_steps, work

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.support.hosts.network import Network

CEILINGS = {
    "legacy": Work(modules=58, syscalls=2150, processes=1, programs=0, threads=2),
    "nft": Work(modules=64, syscalls=1500, processes=0, programs=0, threads=2),
}
"""Over those of an interpreter that does nothing, in a namespace without IPv6, as Docker's networks are."""
QUESTIONS = 2
"""Of DNS: one for each kind of address."""
TRIES = 5
APP = "true"
HALF_THE_LIBRARY = "import argparse, asyncio, email.message, http.client, json, logging, ssl, unittest, urllib.request"
WASTEFUL = (sys.executable, "-c", f"{HALF_THE_LIBRARY}; from imds_detour.bootstrap.pip import main; main()")


def traced(network: Network, *command: str, **settings: str) -> str:
    """Run a command on the app's host under strace and return what strace saw."""
    network.app.run(
        "sh", "-c", "printf '*filter\\nCOMMIT\\n*nat\\nCOMMIT\\n' | iptables-legacy-restore; nft flush ruleset"
    )
    file = "/run/trace"
    environ = network.settings(None, MOCK_TIMEOUT="25", **settings)
    done = network.app.run(*strace(log=file, children=True, options=OPTIONS), *command, environ=environ, check=False)
    assert done.returncode == 0, done.stderr
    return network.app.run("cat", file).stdout


def least(network: Network, command: Sequence[str], ceilings: Work, **settings: str) -> Work:
    """Return the work of a start over that of a bare interpreter; try again while it is above the ceilings."""
    bare = work(traced(network, sys.executable, "-c", f"import os; os.execlp('{APP}', '{APP}')"), APP)
    for _ in range(TRIES):
        done = work(traced(network, *command, APP, **settings), APP).without(bare)
        if not done.beyond(ceilings):
            break
    return done


@pytest.fixture
def docker_like(network: Network) -> Network:
    """Give a network with mock and DNS server, and without IPv6."""
    network.without_ipv6()
    network.start_dns()
    network.start_mock("--quiet")
    return network


@pytest.mark.parametrize("backend", CEILINGS)
def test_a_start_does_no_more_than_it_did(docker_like: Network, backend: str) -> None:
    """Modules, system calls, processes, programs and threads of a start with everything in place have ceilings."""
    ceilings = CEILINGS[backend]
    done = least(docker_like, [DETOUR], ceilings, MOCK_BACKEND=backend)
    assert not done.beyond(ceilings), done


@pytest.mark.slow
def test_half_the_standard_library_breaks_through_the_ceilings(docker_like: Network) -> None:
    """The control: a start that imports what it does not need is caught by modules and by system calls."""
    ceilings = CEILINGS["legacy"]
    done = least(docker_like, WASTEFUL, ceilings, MOCK_BACKEND="legacy")
    assert {"modules", "syscalls"} <= set(done.beyond(ceilings)), done


def questions(network: Network, *plan: str) -> int:
    """Return the number of DNS questions of a start."""
    server = network.start_dns(*plan)
    assert network.detour(APP, MOCK_TIMEOUT="25").returncode == 0
    server.kill()
    return len(server.communicate()[0].splitlines())


def test_a_start_asks_dns_twice(network: Network) -> None:
    """One question for each kind of address; more only where the answer takes long."""
    network.without_ipv6()
    network.start_mock("--quiet")
    assert any(questions(network) <= QUESTIONS for _ in range(TRIES))


def test_more_questions_than_two_are_seen(network: Network) -> None:
    """The control: a name that is not there at first is asked for again."""
    network.without_ipv6()
    network.start_mock("--quiet")
    assert questions(network, "NXDOMAIN", f"{NAME}={MOCK}") > QUESTIONS


def test_no_step_is_left_out_to_be_fast(docker_like: Network) -> None:
    """Guard, route check, redirect, comparison of two answers, counter before and after, and NET_ADMIN given up."""
    traces = (traced(docker_like, DETOUR, APP, MOCK_BACKEND="legacy") for _ in range(TRIES))
    assert any(missing_steps(trace, APP) == [] for trace in traces)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "steps"),
    [
        ({"MOCK_GUARD": "off"}, ["guard", "order"]),
        ({"MOCK_PROBE": "off"}, ["comparison", "counter", "order"]),
        ({"MOCK_KEEP_NET_ADMIN": "1"}, ["NET_ADMIN", "order"]),
    ],
)
def test_a_step_that_is_left_out_is_seen(docker_like: Network, setting: dict[str, str], steps: list[str]) -> None:
    """The control: with a setting that turns a step off, that step is missing."""
    seen: list[str] = []
    for _ in range(TRIES):  # a slow machine makes a start do some things twice
        seen = missing_steps(traced(docker_like, DETOUR, APP, MOCK_BACKEND="legacy", **setting), APP)
        if seen == steps:
            break
    assert seen == steps
