"""The kernel's work for a redirected request, compared with a direct one: detects gross regressions.

One thread holds both ends of each connection, so only processor time counts. Direct and redirected paths alternate in
batches, and the median of the ratios counts (bench/pathcost.c). Noise of a few percent remains; `make bench` is more
precise. With it a redirected request takes about 1.25 times the kernel's work on a kept connection, and 1.35 times with
a connection for each request. Half of the difference is conntrack, which Docker's networks use anyway.
"""

import os
import statistics
import subprocess

import pytest
from bench.paths import Path, Paths
from bench.subjects import HERE

from tests.support.hosts.network import DETOUR

MAX_RATIO = 2.0
"""Limit of the kernel's work for a redirected request, as a multiple of a direct request."""
TRIES = 3
ROUNDS = {"keep": 300, "connect": 60}
BATCHES = 15
EXTRA_RULES = 1000
"""Number of rules without effect that each packet passes."""


@pytest.fixture(scope="session")
def pathcost(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Compile bench/pathcost.c and return its path."""
    program = str(tmp_path_factory.mktemp("bench") / "pathcost")
    subprocess.run(["cc", "-O2", "-o", program, os.path.join(HERE, "pathcost.c")], check=True)
    return program


def cost_ratio(paths: Paths, pathcost: str, mode: str) -> float:
    """Return the cost of the costliest other path as a multiple of the first path's."""
    direct, *others = paths.cost(pathcost, mode, ROUNDS[mode], BATCHES)
    return max(
        statistics.median(cost / reference for cost, reference in zip(column, direct, strict=True)) for column in others
    )


@pytest.mark.slow
@pytest.mark.parametrize("mode", ROUNDS)
def test_redirect_costs_less_than_twice_a_direct_request(pathcost: str, mode: str) -> None:
    """With either backend a redirected request takes less than twice the kernel's work of a direct one."""
    paths = [Path("", docker=False), Path("legacy", docker=False), Path("nft", docker=False)]
    for _ in range(TRIES):
        with Paths(DETOUR, paths) as made:
            ratio = cost_ratio(made, pathcost, mode)
        if ratio <= MAX_RATIO:
            break
    assert ratio <= MAX_RATIO


def test_measurement_detects_a_costly_path(pathcost: str) -> None:
    """Control: a path with 1000 extra rules exceeds the limit."""
    with Paths(DETOUR, [Path("", docker=False), Path("", docker=False)]) as made:
        rules = "".join(
            f"-A OUTPUT -p tcp -m tcp --dport 9 -m comment --comment {n} -j DROP\n" for n in range(EXTRA_RULES)
        )
        restore = made.clients[1].inside("iptables-legacy-restore", "--noflush")
        subprocess.run(restore, input=f"*filter\n{rules}COMMIT\n", text=True, check=True)
        assert cost_ratio(made, pathcost, "keep") > MAX_RATIO


def test_two_direct_paths_cost_the_same(pathcost: str) -> None:
    """Control: the ratio of two paths without rules is about one."""
    for _ in range(TRIES):
        with Paths(DETOUR, [Path("", docker=False), Path("", docker=False)]) as made:
            ratio = cost_ratio(made, pathcost, "keep")
        if 1 / 1.5 < ratio < 1.5:
            break
    assert 1 / 1.5 < ratio < 1.5
