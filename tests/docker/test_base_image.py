"""docs/base-image.md: one Dockerfile whose production image has nothing of imds-detour."""

import json
from pathlib import Path

import pytest

from tests.docker.conftest import Scene
from tests.docker.engine import Engine, Project
from tests.docker.images import PREFIX
from tests.support.documents import blocks
from tests.support.hosts.network import ID_URL, INSTANCE

APP = f'#!/bin/sh\nexec curl -sS --max-time 5 "${{1:-{ID_URL}}}"\n'


NO_IMAGE = "localhost:1/no-such-image"
"""An image that cannot be pulled, at once and without a network."""


def write(folder: Path) -> None:
    """Write the page's Dockerfile, on the base image of these tests and with an app that reads the metadata address."""
    (dockerfile,) = blocks("docs/base-image.md", "dockerfile")
    (folder / "Dockerfile").write_text(dockerfile.replace("debian:bookworm-slim", f"{PREFIX}/debian"))
    (folder / "my-app").write_text(APP)
    (folder / "my-app").chmod(0o755)


def build(scene: Scene, folder: Path, *options: str) -> str:
    """Build the page's Dockerfile, and return the image."""
    write(folder)
    image = f"{PREFIX}/base-{''.join(options[1:]) or 'production'}"
    scene.lan.engine.run(
        "build", "--tag", image, "--build-arg", f"IMDS_DETOUR={scene.images.target('bundle')}", *options, str(folder)
    )
    return image


def config(engine: Engine, image: str) -> tuple[list[str] | None, list[str]]:
    """Return an image's ENTRYPOINT and CMD."""
    entrypoint, command = (
        json.loads(engine.says("inspect", "--format", f"{{{{json .Config.{name}}}}}", image))
        for name in ("Entrypoint", "Cmd")
    )
    return entrypoint, command


def test_production_target_has_nothing_of_imds_detour(scene: Scene, tmp_path: Path) -> None:
    """The default image starts the app itself and has no file of imds-detour. Control: the dev target has both."""
    engine = scene.lan.engine
    production, dev = build(scene, tmp_path), build(scene, tmp_path, "--target", "dev")
    assert config(engine, production) == (None, ["my-app"])
    assert config(engine, dev) == (["/opt/imds-detour/bin/imds-detour"], ["my-app"])
    files = ("find", "/", "-xdev", "-name", "*imds*detour*")
    assert scene.lan.run("--entrypoint", "", production, *files).stdout == ""
    assert "/opt/imds-detour\n" in scene.lan.run("--entrypoint", "", dev, *files).stdout
    assert scene.lan.run(*scene.options(dev)).stdout == INSTANCE
    assert scene.lan.run(*scene.options(production)).stdout == ""


@pytest.mark.usefixtures("images")  # the base images
def test_buildkit_builds_production_without_imds_detour(
    compose: tuple[str, ...], engine: Engine, tmp_path: Path
) -> None:
    """BuildKit, as of Compose 2, builds production without the image imds-detour; the older builder needs it.

    Control: the dev target needs it with both.
    """
    write(tmp_path)
    target = {"context": ".", "args": {"IMDS_DETOUR": NO_IMAGE}}
    services = {"app": {"image": f"{PREFIX}/base-kit", "build": target}}
    services["dev"] = {"image": f"{PREFIX}/base-dev", "build": {**target, "target": "dev"}}
    (tmp_path / "compose.yaml").write_text(json.dumps({"version": "3.4", "services": services}))
    environ = {"DOCKER_BUILDKIT": "1", "COMPOSE_DOCKER_CLI_BUILD": "0"}
    project = Project(compose, engine, (f"{tmp_path}/compose.yaml",), environ)
    old = "1.29" in project.run("version").stdout
    for service, works in (("app", not old), ("dev", False)):
        done = project.run("build", service, check=False)
        assert (done.returncode == 0) is works
        assert works or NO_IMAGE.partition("/")[0] in done.stdout + done.stderr, done
