"""The dev container Feature, by the devcontainer CLI."""

import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker import tools
from tests.docker.conftest import Scene
from tests.docker.engine import ROOT, Container
from tests.docker.images import fetch
from tests.support.hosts.network import ID_URL, INSTANCE

CTL = "/opt/imds-detour/bin/imds-detourctl"
GET = fetch("debian", ID_URL)
UP_SECONDS = 300


class Workspace:
    """A folder with a dev container."""

    def __init__(self, scene: Scene, folder: Path) -> None:
        self.folder = folder
        self.scene = scene
        self.cli = f"{tools.node_modules()}/.bin/devcontainer"

    def up(self, **config: object) -> Container:
        """Start the dev container with these properties, and return it."""
        scene, folder = self.scene, self.folder / ".devcontainer"
        folder.mkdir(exist_ok=True)
        options = ["--pull", "never", "--network", scene.lan.name, "--cap-drop", "NET_RAW"]
        whole = {"image": "imds-detour-test/debian", "runArgs": options, **config}
        (folder / "devcontainer.json").write_text(json.dumps(whole))
        done = self.run("up", "--buildkit", "never", "--id-label", self.label(), "--remove-existing-container")
        assert done.returncode == 0, done.stdout + done.stderr
        return Container(scene.lan.engine, json.loads(done.stdout.splitlines()[-1])["containerId"])

    def run(self, verb: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the CLI."""
        return subprocess.run(
            [self.cli, verb, "--workspace-folder", str(self.folder), *arguments],
            env=self.scene.lan.engine.environ(),
            capture_output=True,
            text=True,
            timeout=UP_SECONDS,
            check=False,
        )

    def label(self) -> str:
        """Return the label of this workspace's containers."""
        return f"imds-detour-test.workspace={self.folder}"

    def close(self) -> None:
        """Remove its containers, and the images that the CLI has built."""
        engine = self.scene.lan.engine
        if made := engine.says("ps", "--all", "--quiet", "--filter", f"label={self.label()}").split():
            built = engine.says("inspect", "--format", "{{.Config.Image}}", *made).split()
            engine.run("rm", "--force", "--volumes", *made)
            engine.run("rmi", *{image for image in built if image.startswith("vsc-")}, check=False)


@pytest.fixture
def workspace(scene: Scene, tmp_path: Path) -> Iterator[Workspace]:
    """Yield a folder for a dev container."""
    made = Workspace(scene, tmp_path)
    yield made
    made.close()


def add_feature(workspace: Workspace) -> None:
    """Put the Feature with the bundle's archive into the workspace, as docs/ci.md says."""
    target = workspace.folder / ".devcontainer/imds-detour"
    shutil.copytree(f"{ROOT}/features/imds-detour", target)
    holder = workspace.scene.lan.create(workspace.scene.images.target("bundle"))
    unpacked = workspace.folder / "imds-detour"
    holder.engine.run("cp", f"{holder.name}:/opt/imds-detour", str(unpacked))
    machine = holder.engine.says("version", "--format", "{{.Server.Arch}}").replace("amd64", "x86_64")
    with tarfile.open(target / f"imds-detour-{machine}.tar.gz", "w:gz", compresslevel=1) as archive:
        archive.add(unpacked, "imds-detour")
    shutil.rmtree(unpacked)


def test_feature_redirects_at_each_start(workspace: Workspace) -> None:
    """With the Feature alone a dev container reads the development mock, and again after a restart."""
    add_feature(workspace)
    made = workspace.up(features={"./imds-detour": {}})
    assert made.run(*GET).stdout == INSTANCE
    assert "169.254.169.254:80 -> 127.0.0.1:1338, " in made.logs()
    workspace.scene.lan.engine.run("restart", "--time", "0", made.name)
    assert workspace.run("up", "--id-label", workspace.label()).returncode == 0  # runs postStartCommand: the check
    assert workspace.run("exec", "--id-label", workspace.label(), *GET).stdout.strip() == INSTANCE


def test_feature_follows_its_options_and_the_check_tells(workspace: Workspace) -> None:
    """With a mock in the options that one answers. Without a mock there, `up` fails by the check."""
    add_feature(workspace)
    options = {"mock": "mock_metadata:1338", "endpoints": "aws,ecs"}
    made = workspace.up(features={"./imds-detour": options})
    assert made.run(*GET).stdout == INSTANCE
    assert "169.254.170.2:80 -> mock_metadata (" in made.logs()
    with pytest.raises(AssertionError, match="postStartCommand"):
        workspace.up(features={"./imds-detour": {"mock": "no-such-host"}}, containerEnv={"MOCK_TIMEOUT": "1"})


def test_image_without_the_feature_needs_init(workspace: Workspace) -> None:
    """The CLI replaces an image's ENTRYPOINT, so nothing is redirected, and `check` says so. `init` redirects."""
    image = {"image": workspace.scene.images.app("debian"), "containerEnv": {"MOCK_HOSTNAME": "mock_metadata:1338"}}
    made = workspace.up(**image, capAdd=["NET_ADMIN"])
    assert "where ENTRYPOINT is replaced" in made.run(CTL, "check", check=False).stderr  # control
    made = workspace.up(**image, capAdd=["NET_ADMIN"], postStartCommand=f"{CTL} init")
    assert made.run(*GET).stdout == INSTANCE
    made = workspace.up(**image, capAdd=["NET_ADMIN"], overrideCommand=False)
    made.says("; exec ")
    assert made.run(*GET).stdout == INSTANCE
