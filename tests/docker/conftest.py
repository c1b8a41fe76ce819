"""Fixtures of the Docker tests. They run outside the sandbox, with containers on closed networks only."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docker import engine as engines
from tests.docker.engine import HOME, ROOT, Container, Engine, Lan, Project
from tests.docker.images import Images, make_bases, nothing, remove_all

MOCK = "mock_metadata"
COMPOSES = ("docker-compose 1.29", "compose 2")
PLUGIN = f"{HOME}/debian13/usr/libexec/docker/cli-plugins/docker-compose"
"""Debian 13's Compose, where `make engine` puts it; elsewhere it is the docker command's plugin."""


@pytest.fixture(scope="session")
def engine() -> Engine:
    """Return the reachable engine."""
    reachable = engines.find()
    if reachable is None:
        pytest.skip("no Docker engine is reachable: set DOCKER_HOST, or start one for tests by `sudo make engine`")
    return reachable


@pytest.fixture(scope="session")
def images(engine: Engine) -> Images:
    """Return the images, which are built at first use."""
    if why := make_bases(engine):
        pytest.skip(f"no base images to build on: {why}")
    return Images(engine)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Remove the images at the end of the main process."""
    if not hasattr(session.config, "workerinput") and (reachable := engines.find()):
        remove_all(reachable)


@pytest.fixture
def lan(engine: Engine) -> Iterator[Lan]:
    """Yield a closed network for this test."""
    made = Lan(engine)
    yield made
    made.close()


class Scene:
    """A closed network with a mock, for the apps of several tests."""

    def __init__(self, lan: Lan, images: Images) -> None:
        """Start the mock."""
        self.lan = lan
        self.images = images
        self.mock = lan.start("--network-alias", MOCK, images.target("mock"))
        self.mock.says("listening on")

    def options(self, image: str, *options: str) -> tuple[str, ...]:
        """Return the options of docker run for an app of this image with imds-detour."""
        return *("--env", f"MOCK_HOSTNAME={MOCK}:1338", "--cap-add", "NET_ADMIN"), *options, image

    def run(self, *command: str, options: tuple[str, ...] = (), **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command as an app of busybox with imds-detour, and return its result."""
        return self.lan.run(*self.options(self.images.app("busybox"), *options), *command, **more)

    def app(self, *options: str) -> Container:
        """Start an app that sleeps, and wait until it has started."""
        image = self.images.app("busybox")
        started = self.lan.start(*self.options(image, *options), *nothing(image))
        started.says("; exec ")
        return started


@pytest.fixture(scope="module")
def scene(engine: Engine, images: Images) -> Iterator[Scene]:
    """Yield a closed network with a mock, for the tests of a module."""
    made = Lan(engine)
    try:
        yield Scene(made, images)
    finally:
        made.close()


@pytest.fixture(scope="session", params=COMPOSES)
def compose(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Return the command of each Compose: 1.29 in Python, and the current one."""
    for command in ((PLUGIN,), ("docker", "compose"), ("docker-compose",)):
        if shutil.which(command[0]):
            said = subprocess.run([*command, "version"], capture_output=True, text=True, check=False)
            if said.returncode == 0 and ("version 1.29" in said.stdout) == (request.param == COMPOSES[0]):
                return command
    pytest.skip(f"{request.param} is not installed: `sudo make engine` brings both")


class Composer:
    """Creates projects of the Compose files, with images of these tests instead of pulled ones."""

    def __init__(self, compose: tuple[str, ...], engine: Engine, folder: Path) -> None:
        self._compose = compose
        self._engine = engine
        self._folder = folder
        self._projects: list[Project] = []

    def project(self, file: str, changes: dict[str, Any], **environ: str) -> Project:
        """Create a project of a Compose file with changes, without starting it."""
        over = self._folder / f"changes-{len(self._projects)}.yaml"
        over.write_text(json.dumps(changes))  # JSON is YAML
        made = Project(self._compose, self._engine, (f"{ROOT}/{file}", str(over)), environ)
        self._projects.append(made)
        return made

    def close(self) -> None:
        """Remove all projects."""
        for project in reversed(self._projects):
            project.close()


@pytest.fixture
def composer(compose: tuple[str, ...], engine: Engine, tmp_path: Path) -> Iterator[Composer]:
    """Yield a maker of projects, which are removed at the end."""
    made = Composer(compose, engine, tmp_path)
    yield made
    made.close()
