"""action.yml on a runner: the step that GitHub would run, in the namespace of a machine with a bridge."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from imds_detour.ctl.lab.hosts import start_host
from tests.netns.test_bridges import FIRST, SECOND, Bridge
from tests.support.faults.host_namespace import BY_HARDWARE
from tests.support.github_action import ROOT, step
from tests.support.hosts.network import ID_URL, INSTANCE, PORT, Network

INSTALLED = os.path.dirname(os.path.dirname(sys.executable))
"""A folder with bin/imds-detourctl, in place of the bundle's."""
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


@pytest.fixture
def runner(network: Network) -> Iterator[Bridge]:
    """Yield a machine with Docker's bridge, a container, and a real metadata service."""
    with start_host() as first, start_host() as second:
        made = Bridge(network, {FIRST: first, SECOND: second})
        made.host.run("sh", "-euc", "ip link set br0 down; ip link set br0 name docker0; ip link set docker0 up")
        made.host.ip("route", "replace", "default", "via", "10.88.0.3")
        yield made


def stop_mock(runner: Bridge, temp: Path) -> None:
    """Stop the mock that the action has left running, as the end of a job does."""
    runner.host.run("kill", (temp / "imds-detour-action/mock.pid").read_text().strip())


def test_action_redirects_the_runner_and_its_containers(runner: Bridge, tmp_path: Path) -> None:
    """Without a mock given, steps and unmodified containers read the development mock; the outputs are written."""
    command, variables = step(ROOT, str(tmp_path), bundle=INSTALLED)
    done = runner.host.run(*BY_HARDWARE, *command, environ={"PATH": PATH, **variables}, check=False)
    assert done.returncode == 0, done.stderr
    assert (runner.host.run("curl", "-sS", ID_URL).stdout, runner.asked()) == (INSTANCE, INSTANCE)
    assert (tmp_path / "github_path").read_text() == f"{INSTALLED}/bin\n"
    assert (tmp_path / "github_output").read_text() == "mock=172.31.0.1:1338\n"
    stop_mock(runner, tmp_path)
    assert runner.host.run("curl", "-sS", "-m5", ID_URL, check=False).returncode  # the guard stays


def test_action_fails_closed_without_its_mock(runner: Bridge, tmp_path: Path) -> None:
    """A mock that is not there fails the step, in one line; a folder that is no bundle does too."""
    for inputs, reason in (
        ({"bundle": INSTALLED, "mock": f"10.88.0.3:{PORT}"}, "no mock after"),
        ({"bundle": str(tmp_path)}, f"no bin/imds-detourctl in {tmp_path}"),
    ):
        command, variables = step(ROOT, str(tmp_path), **inputs)
        environ = {"PATH": PATH, "MOCK_TIMEOUT": "1", **variables}
        done = runner.host.run(*BY_HARDWARE, *command, environ=environ, check=False)
        assert done.returncode == 1
        assert reason in done.stderr.splitlines()[-1]
        assert not (tmp_path / "github_output").exists()
