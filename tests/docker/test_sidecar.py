"""compose.sidecar.yaml: an image that stays as it is, behind a sidecar that owns the network and follows the mock."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.docker.images import PREFIX, fetch
from tests.support.hosts.network import ID_URL, INSTANCE

if TYPE_CHECKING:
    from tests.docker.conftest import Composer
    from tests.docker.engine import Project
    from tests.docker.images import Images

APP = f"{PREFIX}/debian"
GET = fetch(APP, ID_URL)


def with_sidecar(composer: Composer, images: Images) -> Project:
    """Make the project, with our mock and a plain Debian as the app."""
    return composer.project(
        "docker/compose.sidecar.yaml",
        {"networks": {"default": {"internal": True}}},
        MOCK_IMAGE=images.target("mock"),
        SIDECAR_IMAGE=images.target("ctl"),
        APP_IMAGE=APP,
    )


def test_an_unmodified_image_reads_the_mock(composer: Composer, images: Images) -> None:
    """It starts when the sidecar is healthy, and has no capability and no variable for our sake."""
    project = with_sidecar(composer, images)
    project.run("up", "--detach")
    app = project.container("app")
    assert app.run(*GET).stdout == INSTANCE
    assert project.container("metadata").inspect(".State.Health.Status") == "healthy"
    assert "MOCK_" not in app.reads("/proc/1/environ")
    assert app.inspect(".HostConfig.CapAdd") is None
    assert app.inspect(".Mounts") == []
    image = app.inspect(".Config.Image")
    entrypoint = project.engine.says("inspect", "--format", "{{json .Config.Entrypoint}}", image)
    assert json.dumps(app.inspect(".Config.Entrypoint")) == entrypoint


def test_an_app_that_is_restarted_reads_the_mock_again(composer: Composer, images: Images) -> None:
    """The redirect is the sidecar's, and stands while the app comes and goes."""
    project = with_sidecar(composer, images)
    project.run("up", "--detach")
    project.run("restart", "app")
    assert project.container("app").run(*GET).stdout == INSTANCE


def test_a_sidecar_that_is_restarted_takes_the_apps_network_along(composer: Composer, images: Images) -> None:
    """Nothing answers the app then: Docker leaves it in the old one, without a way out. Restarted, it is as before."""
    project = with_sidecar(composer, images)
    project.run("up", "--detach")
    project.run("restart", "metadata")
    app, sidecar = project.container("app"), project.container("metadata")
    done = app.run(*GET, check=False)
    assert done.returncode
    assert INSTANCE not in done.stdout
    assert project.eventually(lambda: sidecar.inspect(".State.Health.Status") == "healthy")
    project.run("restart", "app")
    assert app.run(*GET).stdout == INSTANCE


def test_the_sidecar_follows_a_mock_that_moves(composer: Composer, images: Images) -> None:
    """Recreated at another address, the mock is reached again without a restart of the app."""
    project = with_sidecar(composer, images)
    project.run("up", "--detach")
    app, before = project.container("app"), project.container("mock_metadata").address()
    started = app.inspect(".State.StartedAt")
    project.engine.run("rm", "--force", project.container("mock_metadata").name)
    # Somebody else takes the address that it had.
    project.engine.run(
        "run", "--detach", "--rm", "--pull", "never", "--name", f"{project.name}-other",
        "--network", f"{project.name}_default", APP, "sleep", "600",
    )  # fmt: skip
    try:
        project.run("up", "--detach", "--no-deps", "mock_metadata")
        assert project.container("mock_metadata").address() != before
        assert project.eventually(lambda: app.run(*GET, check=False).stdout == INSTANCE)
        assert app.inspect(".State.StartedAt") == started
    finally:
        project.engine.run("rm", "--force", f"{project.name}-other")


def test_without_the_mock_nothing_answers(composer: Composer, images: Images) -> None:
    """The guard holds while there is nobody to redirect to."""
    project = with_sidecar(composer, images)
    project.run("up", "--detach")
    project.run("stop", "--timeout", "0", "mock_metadata")
    done = project.container("app").run(*GET, check=False)
    assert done.returncode
    assert INSTANCE not in done.stdout
