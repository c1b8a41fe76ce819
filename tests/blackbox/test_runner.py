"""pytest as a developer types it: outside a sandbox it runs itself again in one, or refuses."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from imds_detour.ctl.lab.hosts import environ

if TYPE_CHECKING:
    import subprocess

    from tests.support.hosts.network import Network

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PYTEST = (f"{os.path.dirname(sys.executable)}/pytest", "-p", "no:cacheprovider")
FILE = "tests/netns/test_side_effects.py"
WITHOUT_IT = """
import pytest, sys
from imds_detour.ctl.lab import sandbox
sandbox.run = lambda command, environ: None
sys.exit(pytest.main(sys.argv[1:]))
"""


def typed(network: Network, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in this checkout on the app's host, which has more than a loopback device."""
    return network.app.run("sh", "-c", f'cd {ROOT} && exec "$@"', "sh", *command, environ=environ(), check=False)


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["one process", "xdist"])
def test_pytest_runs_itself_again_in_a_sandbox(network: Network, workers: tuple[str, ...]) -> None:
    """It hands on its options, and its exit status is that of the run in the sandbox."""
    done = typed(network, *PYTEST, FILE, "-k", "plan", *workers)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
    nothing = typed(network, *PYTEST, FILE, "-k", "no_test_has_this_name", *workers)
    assert nothing.returncode == pytest.ExitCode.NO_TESTS_COLLECTED


def test_pytest_runs_unit_tests_where_it_is(network: Network) -> None:
    """A namespace without the rights to make a sandbox is good enough for them."""
    done = typed(network, "setpriv", "--bounding-set=-all", "--inh-caps=-all", *PYTEST, "tests/unit/test_probe.py")
    assert done.returncode == 0, done.stdout + done.stderr


def test_pytest_refuses_tests_of_networks_outside_a_sandbox(network: Network) -> None:
    """The control: where the sandbox is left out, no test runs; where none can be made, the reason is given."""
    refused = typed(network, sys.executable, "-c", WITHOUT_IT, FILE)
    assert refused.returncode == pytest.ExitCode.USAGE_ERROR, refused
    assert "they run only in a sandbox" in refused.stderr
    assert "passed" not in refused.stdout
    unable = typed(network, "setpriv", "--bounding-set=-all", "--inh-caps=-all", *PYTEST, FILE)
    assert unable.returncode == pytest.ExitCode.USAGE_ERROR, unable
    assert "these tests need a sandbox: no namespaces for this user" in unable.stderr
