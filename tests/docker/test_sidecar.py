"""compose.sidecar.yaml: an unmodified image with a sidecar that follows the mock."""

import json

from tests.docker.conftest import Composer
from tests.docker.engine import Project
from tests.docker.images import PREFIX, Images, fetch
from tests.support.hosts.network import ID_URL, INSTANCE

APP = f"{PREFIX}/debian"
GET = fetch(APP, ID_URL)


def with_sidecar(composer: Composer, images: Images) -> Project:
    """Start the project with the development mock, and plain Debian as the app."""
    project = composer.project(
        "docker/compose.sidecar.yaml",
        {"networks": {"default": {"internal": True}}},
        MOCK_IMAGE=images.target("mock"),
        SIDECAR_IMAGE=images.target("ctl"),
        APP_IMAGE=APP,
    )
    project.run("up", "--detach")
    return project


def test_unmodified_image_reads_the_mock(composer: Composer, images: Images) -> None:
    """The app starts when the sidecar is healthy, without added capabilities or variables."""
    project = with_sidecar(composer, images)
    app = project.container("app")
    assert app.run(*GET).stdout == INSTANCE
    assert project.container("metadata").inspect(".State.Health.Status") == "healthy"
    assert "MOCK_" not in app.reads("/proc/1/environ")
    assert app.inspect(".HostConfig.CapAdd") is None
    assert app.inspect(".Mounts") == []
    entrypoint = project.engine.says("inspect", "--format", "{{json .Config.Entrypoint}}", app.inspect(".Config.Image"))
    assert json.dumps(app.inspect(".Config.Entrypoint")) == entrypoint


def test_restarted_app_reads_the_mock(composer: Composer, images: Images) -> None:
    """A restarted app reads the mock. After a restart of the sidecar it has no network until it is restarted too."""
    project = with_sidecar(composer, images)
    project.run("restart", "app")
    assert project.container("app").run(*GET).stdout == INSTANCE
    project.run("restart", "metadata")
    app, sidecar = project.container("app"), project.container("metadata")
    done = app.run(*GET, check=False)
    assert done.returncode
    assert INSTANCE not in done.stdout
    assert project.eventually(lambda: sidecar.inspect(".State.Health.Status") == "healthy")
    project.run("restart", "app")
    assert app.run(*GET).stdout == INSTANCE


def test_sidecar_follows_a_mock_that_moves(composer: Composer, images: Images) -> None:
    """After the mock moved to another address, the app reaches it without a restart."""
    project = with_sidecar(composer, images)
    app, before = project.container("app"), project.container("mock_metadata").address()
    started = app.inspect(".State.StartedAt")
    project.engine.run("rm", "--force", project.container("mock_metadata").name)
    # Another container takes its address.
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


def test_app_gets_no_answer_without_the_mock(composer: Composer, images: Images) -> None:
    """Without the mock the guard refuses the app's requests."""
    project = with_sidecar(composer, images)
    project.run("stop", "--timeout", "0", "mock_metadata")
    done = project.container("app").run(*GET, check=False)
    assert done.returncode
    assert INSTANCE not in done.stdout
