"""Fixtures of the Docker layer. These tests run outside the sandbox: only containers on closed networks act."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from imds_detour.ctl.main import VERBS
from tests.docker import engine as engines
from tests.docker.engine import HOME, ROOT, Container, Engine, Lan, Project
from tests.docker.images import Images, make_bases, nothing, remove_all

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

# Until imds-detourctl has the verb, its tests are not there either.
collect_ignore = [] if "sidecar" in VERBS else ["test_sidecar.py"]

MOCK = "mock_metadata"
COMPOSES = ("docker-compose 1.29", "compose 2")
PLUGIN = f"{HOME}/debian13/usr/libexec/docker/cli-plugins/docker-compose"
"""Debian 13's Compose, where `make engine` puts it; elsewhere it is the docker command's plugin."""


@pytest.fixture(scope="session")
def engine() -> Engine:
    """Give the engine that is reachable."""
    found = engines.find()
    if found is None:
        pytest.skip("no Docker engine is reachable: set DOCKER_HOST, or start one for tests by `sudo make engine`")
    return found


@pytest.fixture(scope="session")
def images(engine: Engine) -> Images:
    """Give the images, built when asked for."""
    if why := make_bases(engine):
        pytest.skip(f"no base images to build on: {why}")
    return Images(engine)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Remove the images when the last process is done."""
    if not hasattr(session.config, "workerinput") and (found := engines.find()):
        remove_all(found)


@pytest.fixture
def lan(engine: Engine) -> Iterator[Lan]:
    """Give a closed network of the test's own."""
    made = Lan(engine)
    yield made
    made.close()


class Scene:
    """A closed network with a mock on it, for apps that come and go."""

    def __init__(self, lan: Lan, images: Images) -> None:
        """Start the mock."""
        self.lan = lan
        self.images = images
        self.mock = lan.start("--network-alias", MOCK, images.target("mock"))
        self.mock.says("listening on")

    def options(self, image: str, *options: str) -> tuple[str, ...]:
        """Return what docker run needs for an app of this image behind the detour."""
        return *("--env", f"MOCK_HOSTNAME={MOCK}:1338", "--cap-add", "NET_ADMIN"), *options, image

    def app(self, *options: str, base: str = "busybox") -> Container:
        """Start an app that does nothing, and wait until it has been started."""
        image = self.images.app(base)
        started = self.lan.start(*self.options(image, *options), *nothing(image))
        started.says("; exec ")
        return started


@pytest.fixture(scope="module")
def scene(engine: Engine, images: Images) -> Iterator[Scene]:
    """Give a closed network with a mock, which the tests of a module share."""
    made = Lan(engine)
    try:
        yield Scene(made, images)
    finally:
        made.close()


@pytest.fixture(scope="session", params=COMPOSES)
def compose(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Give the command of each Compose: Python's 1.29, and the current one."""
    for command in ((PLUGIN,), ("docker", "compose"), ("docker-compose",)):
        if shutil.which(command[0]):
            said = subprocess.run([*command, "version"], capture_output=True, text=True, check=False)
            if said.returncode == 0 and ("version 1.29" in said.stdout) == (request.param == COMPOSES[0]):
                return command
    pytest.skip(f"{request.param} is not installed: `sudo make engine` brings both")


class Composer:
    """Makes projects of our Compose files, with images of the tests in the place of those that would be pulled."""

    def __init__(self, compose: tuple[str, ...], engine: Engine, folder: Path) -> None:
        self._compose = compose
        self._engine = engine
        self._folder = folder
        self._projects: list[Project] = []

    def project(self, file: str, changes: dict[str, Any], **environ: str) -> Project:
        """Make a project of a file of ours, with changes laid over it; it is not up yet."""
        over = self._folder / f"changes-{len(self._projects)}.yaml"
        over.write_text(json.dumps(changes))  # JSON is YAML
        made = Project(self._compose, self._engine, (f"{ROOT}/{file}", str(over)), environ)
        self._projects.append(made)
        return made

    def close(self) -> None:
        """Take all of them down."""
        for each in reversed(self._projects):
            each.close()


@pytest.fixture
def composer(compose: tuple[str, ...], engine: Engine, tmp_path: Path) -> Iterator[Composer]:
    """Give a maker of projects, which takes them down at the end."""
    made = Composer(compose, engine, tmp_path)
    yield made
    made.close()
