"""compose.link-local.yaml: the mock itself at 169.254.169.254, and the limits that the file states."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.docker.engine import OURS
from tests.docker.images import fetch
from tests.support.hosts.network import ID_URL, INSTANCE, METADATA

if TYPE_CHECKING:
    from tests.docker.conftest import Composer
    from tests.docker.engine import Engine, Project
    from tests.docker.images import Images

FILE = "docker/compose.link-local.yaml"
GET = fetch("debian", ID_URL)


@pytest.fixture(autouse=True)
def _own_engine(engine: Engine) -> None:
    """Such a network takes the range away from the engine's host: that is only done to the engine made for tests."""
    if engine.host != f"unix://{OURS}":
        pytest.skip("these take 169.254.169.0/24 away from the engine's host: for the engine of `make engine` only")


def linked(composer: Composer, images: Images, **more: Any) -> Project:  # noqa: ANN401  (a service's own keys)
    """Make the project, with our mock on port 80 and the way out of the app's other network closed."""
    changes = {
        "services": {"mock_metadata": {"command": ["--listen", "0.0.0.0:80"]}, **more},
        "networks": {"default": {"internal": True}},
    }
    base = "imds-detour-test/debian"
    return composer.project(FILE, changes, MOCK_IMAGE=images.target("mock"), DEBUG_IMAGE=base)


def test_the_mock_answers_without_any_rule(composer: Composer, images: Images) -> None:
    """The app needs no capability, and has none of ours in it."""
    project = linked(composer, images, debug={"cap_drop": ["ALL"]})
    project.run("up", "--detach")
    project.container("mock_metadata").says("listening")
    debug = project.container("debug")
    assert debug.run(*GET).stdout == INSTANCE


def test_only_one_such_network_to_an_engine(composer: Composer, images: Images) -> None:
    """A second project is refused."""
    linked(composer, images).run("up", "--detach")
    refused = linked(composer, images).run("up", "--detach", check=False)
    assert refused.returncode
    assert "Pool overlaps" in refused.stderr


def test_the_engines_host_loses_the_range(composer: Composer, images: Images, engine: Engine) -> None:
    """A container in the host's own network reaches the mock, too, where the host had its real service."""
    get = ("run", "--rm", "--pull", "never", "--network", "host", "imds-detour-test/debian", *GET)
    assert engine.run(*get, check=False).returncode, "the engine's namespace has no way to a metadata address"
    project = linked(composer, images)
    project.run("up", "--detach")
    project.container("mock_metadata").says("listening")
    assert engine.run(*get).stdout == INSTANCE


def test_the_app_does_not_wait(composer: Composer, images: Images) -> None:
    """It starts although no mock is there, and what it asks fails or hangs."""
    project = linked(composer, images)
    project.run("up", "--detach", "--no-deps", "debug")
    debug = project.container("debug")
    assert debug.inspect(".State.Running")
    assert debug.run(*GET, check=False).returncode


def test_other_ports_are_the_mocks(composer: Composer, images: Images) -> None:
    """There is no guard: what goes to another port reaches the mock's container, or in its absence the network."""
    project = linked(composer, images, mock_metadata={"command": "--listen 0.0.0.0:80 --listen 0.0.0.0:8080"})
    project.run("up", "--detach")
    project.container("mock_metadata").says("listening")
    other = f"http://{METADATA}:8080/latest/meta-data/instance-id"
    assert project.container("debug").run(*fetch("debian", other)).stdout == INSTANCE
