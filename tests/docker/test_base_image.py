"""docs/base-image.md: one Dockerfile whose production image has nothing of imds-detour."""

import json
from pathlib import Path

from tests.docker.conftest import Scene
from tests.docker.engine import Engine
from tests.docker.images import PREFIX
from tests.support.documents import blocks
from tests.support.hosts.network import ID_URL, INSTANCE

APP = f'#!/bin/sh\nexec curl -sS --max-time 5 "${{1:-{ID_URL}}}"\n'


def build(scene: Scene, folder: Path, *options: str) -> str:
    """Build the page's Dockerfile, on the base image of these tests and with an app that reads the metadata address."""
    (dockerfile,) = blocks("docs/base-image.md", "dockerfile")
    (folder / "Dockerfile").write_text(dockerfile.replace("debian:bookworm-slim", f"{PREFIX}/debian"))
    (folder / "my-app").write_text(APP)
    (folder / "my-app").chmod(0o755)
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
