"""compose.link-local.yaml: the mock itself has the address 169.254.169.254, with the limits that the file names."""

from typing import Any

import pytest

from tests.docker.conftest import Composer
from tests.docker.engine import TEST_SOCKET, Engine, Project
from tests.docker.images import Images, fetch
from tests.support.hosts.network import ID_URL, INSTANCE, METADATA

FILE = "docker/compose.link-local.yaml"
GET = fetch("debian", ID_URL)


@pytest.fixture(autouse=True)
def _own_engine(engine: Engine) -> None:
    """Skip unless the engine is the tests' own, since the network takes the range from the engine's host."""
    if engine.host != f"unix://{TEST_SOCKET}":
        pytest.skip("these take 169.254.169.0/24 away from the engine's host: for the engine of `make engine` only")


def linked(composer: Composer, images: Images, **more: Any) -> Project:  # noqa: ANN401  (a service's own keys)
    """Create the project with the development mock on port 80, and without the external network."""
    changes = {
        "services": {"mock_metadata": {"command": ["--listen", "0.0.0.0:80"]}, **more},
        "networks": {"default": {"internal": True}},
    }
    base = "imds-detour-test/debian"
    return composer.project(FILE, changes, MOCK_IMAGE=images.target("mock"), DEBUG_IMAGE=base)


def start(project: Project) -> None:
    """Start a project, and wait until its mock listens."""
    project.run("up", "--detach")
    project.container("mock_metadata").says("listening")


def test_mock_answers_without_rules(composer: Composer, images: Images) -> None:
    """The app reads the mock without a rule and without a capability."""
    project = linked(composer, images, debug={"cap_drop": ["ALL"]})
    start(project)
    assert project.container("debug").run(*GET).stdout == INSTANCE


def test_second_network_is_refused(composer: Composer, images: Images) -> None:
    """An engine refuses a second project of this kind."""
    linked(composer, images).run("up", "--detach")
    refused = linked(composer, images).run("up", "--detach", check=False)
    assert refused.returncode
    assert "Pool overlaps" in refused.stderr


def test_engine_host_reaches_the_mock_too(composer: Composer, images: Images, engine: Engine) -> None:
    """A container in the engine host's network reaches the mock instead of the host's real service."""
    get = ("run", "--rm", "--pull", "never", "--network", "host", "imds-detour-test/debian", *GET)
    assert engine.run(*get, check=False).returncode, "the engine's namespace has no way to a metadata address"
    start(linked(composer, images))
    assert engine.run(*get).stdout == INSTANCE


def test_app_starts_without_the_mock(composer: Composer, images: Images) -> None:
    """The app starts without the mock, and its requests fail or hang."""
    project = linked(composer, images)
    project.run("up", "--detach", "--no-deps", "debug")
    debug = project.container("debug")
    assert debug.inspect(".State.Running")
    assert debug.run(*GET, check=False).returncode


def test_other_ports_have_no_guard(composer: Composer, images: Images) -> None:
    """There is no guard: other ports reach the mock's container, or the network if it is absent."""
    project = linked(composer, images, mock_metadata={"command": "--listen 0.0.0.0:80 --listen 0.0.0.0:8080"})
    start(project)
    other = f"http://{METADATA}:8080/latest/meta-data/instance-id"
    assert project.container("debug").run(*fetch("debian", other)).stdout == INSTANCE
