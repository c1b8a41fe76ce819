"""A bare pytest: outside a sandbox it starts itself in one, or refuses."""

import os
import subprocess
import sys

import pytest

from imds_detour.ctl.lab.hosts import environ
from tests.support.hosts.network import Network
from tests.support.marks import first_quick

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
    """Run a command in this checkout on the app's host, where the sandbox check sees a network device."""
    return network.app.run("sh", "-c", f'cd {ROOT} && exec "$@"', "sh", *command, environ=environ(), check=False)


@pytest.mark.parametrize("workers", first_quick(["-n0", "-n2"]), ids=["one process", "xdist"])
def test_pytest_starts_itself_in_a_sandbox(network: Network, workers: str) -> None:
    """Outside a sandbox, pytest starts itself in one with its options, and returns that run's exit status."""
    done = typed(network, *PYTEST, FILE, "-k", "plan", workers)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
    nothing = typed(network, *PYTEST, FILE, "-k", "no_test_has_this_name", workers)
    assert nothing.returncode == pytest.ExitCode.NO_TESTS_COLLECTED


def test_pytest_runs_only_unit_tests_without_a_sandbox(network: Network) -> None:
    """Unit tests run without a sandbox. Negative control: no network test does, and the message gives the reason."""
    unable = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", *PYTEST)
    done = typed(network, *unable, "tests/unit/test_http.py")
    assert done.returncode == 0, done.stdout + done.stderr
    refused = typed(network, sys.executable, "-c", WITHOUT_IT, FILE)
    assert refused.returncode == pytest.ExitCode.USAGE_ERROR, refused
    assert "run them in a sandbox" in refused.stderr
    assert "passed" not in refused.stdout
    refused = typed(network, *unable, FILE)
    assert refused.returncode == pytest.ExitCode.USAGE_ERROR, refused
    assert "these tests need a sandbox: no namespaces for this user" in refused.stderr


SLOW_FILES = {"test_sidecar_moves.py": "test_sidecar.py has a mock that moves"}
"""Files of tests/netns without a quick test, with the reason."""


def test_netns_files_have_quick_tests() -> None:
    """Each file of tests/netns has a test that a quick run includes."""
    command = [*PYTEST, "--collect-only", "-q", "-m", "not slow", "tests/netns"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    quick = {line.partition("::")[0].rpartition("/")[2] for line in listed.splitlines() if "::" in line}
    assert {name for name in os.listdir(f"{ROOT}/tests/netns") if name.startswith("test_")} - quick == set(SLOW_FILES)
