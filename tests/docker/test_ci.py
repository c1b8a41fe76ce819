"""Containers of CI jobs: their ENTRYPOINT is replaced, as by GitHub's runner, and the first step starts imds-detour."""

from collections.abc import Iterator

import pytest

from tests.docker.conftest import Scene
from tests.docker.engine import ROOT, Container
from tests.docker.images import fetch
from tests.support.github_action import step
from tests.support.hosts.network import ID_URL, INSTANCE

FOLDER = "/opt/imds-detour"
CTL = f"{FOLDER}/bin/imds-detourctl"
GET = fetch("debian", ID_URL)
NET_ADMIN = ("--cap-add", "NET_ADMIN", "--cap-drop", "NET_RAW")


def job(scene: Scene, *options: str) -> Container:
    """Start the container of a job as GitHub's runner does: `--entrypoint tail IMAGE -f /dev/null`."""
    replaced = ("--entrypoint", "tail", "--volume", f"{ROOT}:/__w/_actions/imds-detour:ro")
    return scene.lan.start(*replaced, *options, scene.images.app("debian"), "-f", "/dev/null")


@pytest.fixture
def container(scene: Scene) -> Iterator[Container]:
    """Yield a job's container with NET_ADMIN."""
    started = job(scene, *NET_ADMIN, "--env", "MOCK_HOSTNAME=mock_metadata:1338")
    yield started
    scene.lan.remove(started)


def run_action(container: Container, **inputs: str) -> int:
    """Run the step of action.yml in the job's container, and return its status."""
    command, variables = step("/__w/_actions/imds-detour", "/tmp", container.name, **inputs)  # noqa: S108  (in there)
    options = [word for name, value in variables.items() for word in ("--env", f"{name}={value}")]
    return container.engine.run("exec", *options, container.name, *command, check=False).returncode


def test_job_without_a_first_step_has_no_guard_and_check_says_so(container: Container) -> None:
    """With ENTRYPOINT replaced there is no redirect and no guard; `check` says so, and what the first step is."""
    done = container.run(CTL, "check", check=False)
    assert done.returncode == 1
    assert "no redirect or guard of 169.254.169.254:80 can be seen" in done.stderr
    assert "where ENTRYPOINT is replaced (GitHub `container:` jobs, dev containers, `--entrypoint`), run" in done.stderr
    assert container.run(*GET, check=False).returncode


def test_init_as_the_first_step_serves_the_steps_that_follow(container: Container) -> None:
    """After `imds-detourctl init` each later step of the job reads the mock, and `check` succeeds."""
    container.run(CTL, "init")
    assert container.run(*GET).stdout == INSTANCE
    assert container.run(CTL, "check").stdout.startswith("169.254.169.254:80 -> mock_metadata")


def test_step_behind_the_entrypoint_has_no_net_admin(container: Container) -> None:
    """A single step's command behind imds-detour reads the mock, without NET_ADMIN."""
    command = ("sh", "-c", f"{' '.join(GET)}; grep CapEff /proc/self/status")
    done = container.run(f"{FOLDER}/bin/imds-detour", *command)
    assert done.stdout.startswith(INSTANCE)
    assert not int(done.stdout.split()[-1], 16) >> 12 & 1


def test_action_in_a_container_job(container: Container) -> None:
    """The action redirects to a mock that is given, and leaves the programs on the job's PATH."""
    assert run_action(container, bundle=FOLDER, mock="mock_metadata:1338") == 0
    assert container.run(*GET).stdout == INSTANCE
    assert container.reads("/tmp/github_path") == f"{FOLDER}/bin"  # noqa: S108  (in the container)
    assert container.reads("/tmp/github_output") == "mock=mock_metadata:1338"  # noqa: S108  (likewise)


def test_action_brings_bundle_and_mock(container: Container) -> None:
    """From a .tar.gz, and without a mock, the action starts the development mock on the job's loopback."""
    container.run("sh", "-euc", f"tar -czf /bundle.tar.gz -C /opt imds-detour; mv {FOLDER} {FOLDER}.away")
    assert run_action(container, bundle="/bundle.tar.gz") == 0
    assert container.run(*GET).stdout == INSTANCE
    assert container.reads("/tmp/github_output") == "mock=127.0.0.1:1338"  # noqa: S108  (in the container)


def test_job_without_net_admin_names_it(scene: Scene) -> None:
    """Without `options: --cap-add NET_ADMIN` the first step fails and names the capability."""
    container = job(scene, "--env", "MOCK_HOSTNAME=mock_metadata:1338")
    done = container.run(CTL, "init", check=False)
    assert done.returncode == 125
    assert "no NET_ADMIN capability" in done.stderr


def test_mock_on_a_shared_loopback_needs_no_capability(scene: Scene) -> None:
    """As on CircleCI: with a shared loopback and no capability, MOCK_BACKEND=env sets the SDKs' variables."""
    mock = scene.lan.start(scene.images.target("mock"), "--listen", "127.0.0.1:1338")
    mock.says("listening on")
    settings = ("--env", "MOCK_BACKEND=env", "--env", "MOCK_HOSTNAME=127.0.0.1:1338", "--cap-drop", "ALL")
    done = scene.lan.run(*settings, scene.images.app("debian"), "env", on=f"container:{mock.name}")
    assert "AWS_EC2_METADATA_SERVICE_ENDPOINT=http://127.0.0.1:1338" in done.stdout, done.stderr
