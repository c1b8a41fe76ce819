"""The examples for Testcontainers, run as they are."""

import os
import subprocess
from pathlib import Path

from tests.docker import tools
from tests.docker.conftest import Scene
from tests.docker.engine import ROOT
from tests.support.hosts.network import INSTANCE

SECONDS = 180


def run(scene: Scene, command: tuple[str, ...], folder: str) -> str:
    """Run an example with the app and the mock of these tests, and return its output."""
    images = {"APP_IMAGE": scene.images.app("debian"), "MOCK_IMAGE": scene.images.target("mock")}
    # Ryuk, which removes what a killed test leaves, is an image that is not here. The engine has no default bridge, at
    # which a test in a container would look for published ports.
    settings = {"TESTCONTAINERS_RYUK_DISABLED": "true", "TESTCONTAINERS_HOST_OVERRIDE": "localhost"}
    environ = scene.lan.engine.environ({**images, **settings})
    done = subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_python_example_reads_the_mock(scene: Scene) -> None:
    """The example for Python waits for imds-detour's last line, and its app reads the mock."""
    assert INSTANCE in run(scene, (tools.python(), "test_app.py"), f"{ROOT}/examples/testcontainers-python")


def test_node_example_reads_the_mock(scene: Scene, tmp_path: Path) -> None:
    """The example for Node does the same."""
    os.symlink(tools.node_modules(), tmp_path / "node_modules")
    os.symlink(f"{ROOT}/examples/testcontainers-node/app.test.mjs", tmp_path / "app.test.mjs")
    command = ("node", "--preserve-symlinks", "--preserve-symlinks-main", "--test")
    assert INSTANCE in run(scene, command, str(tmp_path))
