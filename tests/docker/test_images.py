"""The content, labels and users of the published images."""

import json
import tarfile
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from release import names

from tests.docker.conftest import Scene
from tests.docker.engine import ROOT, Engine, Lan
from tests.docker.images import PREFIX, Images, fetch

PUBLISHED = ("bundle", "ctl", "mock")
NO_BUILDX = "no buildx: `sudo make engine` brings Debian 13's"


def config(engine: Engine, image: str) -> dict[str, Any]:
    """Return an image's configuration."""
    value: dict[str, Any] = json.loads(engine.says("image", "inspect", "--format", "{{json .Config}}", image))
    return value


def files(engine: Engine, lan: Lan, image: str, folder: Path) -> list[str]:
    """Return the path of each file in an image, without those that Docker adds to a container."""
    made = lan.create(image)
    engine.run("export", "--output", str(folder / "root.tar"), made.name)
    with tarfile.open(folder / "root.tar") as archive:
        names = [member.name for member in archive if not member.isdir()]
    docker = {".dockerenv", "dev/console", "etc/hostname", "etc/hosts", "etc/mtab", "etc/resolv.conf"}
    return [name for name in names if name not in docker]


def read(tar: tarfile.TarFile, name: str) -> bytes:
    """Return a file of an archive."""
    file = tar.extractfile(name)
    assert file is not None
    return file.read()


def machine(engine: Engine, lan: Lan, image: str, folder: Path) -> tuple[str, int]:
    """Return an image's architecture, and the e_machine (linux/elf-em.h) of its entrypoint."""
    made = lan.create(image)
    archive = str(folder / f"{made.name}.tar")
    engine.run("export", "--output", archive, made.name)
    with tarfile.open(archive) as tar:
        program = read(tar, "opt/imds-detour/bin/imds-detour")
    return engine.says("image", "inspect", "--format", "{{.Architecture}}", image), program[18]


def test_buildkit_builds_the_image_of_the_other_architecture(
    engine: Engine, images: Images, lan: Lan, tmp_path: Path
) -> None:
    """BuildKit cross-builds the image for arm64 on x86-64, and the other way round. The control is the own image."""
    amd64, arm64 = ("amd64", 62), ("arm64", 183)
    own = machine(engine, lan, images.target("bundle"), tmp_path)
    other = arm64 if own == amd64 else amd64
    image = f"{PREFIX}/bundle-{other[0]}"
    if not images.for_platforms([f"linux/{other[0]}"], f"type=docker,name={image}"):
        pytest.skip(NO_BUILDX)
    assert {own, machine(engine, lan, image, tmp_path)} == {amd64, arm64}


def test_one_build_gives_one_image_for_both_architectures(engine: Engine, images: Images, tmp_path: Path) -> None:
    """One `buildx build --platform` gives a manifest list of both architectures, each with its own program.

    That needs an engine with containerd's image store. The control: the default store refuses it.
    """
    archive = tmp_path / "image.tar"
    build = partial(images.for_platforms, ["linux/amd64", "linux/arm64"], f"type=oci,dest={archive}")
    if "io.containerd" not in engine.says("info", "--format", "{{.DriverStatus}}"):
        with pytest.raises(AssertionError, match="turn on the containerd image store"):
            build() or pytest.skip(NO_BUILDX)
        return
    if not build():
        pytest.skip(NO_BUILDX)
    with tarfile.open(archive) as tar:

        def blob(described: dict[str, Any]) -> bytes:
            return read(tar, f"blobs/{described['digest'].replace(':', '/')}")

        (image,) = json.loads(read(tar, "index.json"))["manifests"]
        machines = {}
        for entry in json.loads(blob(image))["manifests"]:
            if entry["platform"]["os"] == "linux":  # not the attestation of how it was built
                (layer,) = json.loads(blob(entry))["layers"]
                with tarfile.open(fileobj=BytesIO(blob(layer))) as root:
                    machines[entry["platform"]["architecture"]] = read(root, "opt/imds-detour/bin/imds-detour")[18]
    assert machines == {"amd64": 62, "arm64": 183}


@pytest.mark.parametrize("name", PUBLISHED)
def test_images_hold_a_folder_and_labels(engine: Engine, images: Images, lan: Lan, tmp_path: Path, name: str) -> None:
    """The images have only /opt/imds-detour, without shell, pip or compiler, and OCI labels with their own title."""
    paths = files(engine, lan, images.target(name), tmp_path)
    assert "opt/imds-detour/bin/imds-detour" in paths
    assert [path for path in paths if not path.startswith("opt/imds-detour/")] == []
    assert [path for path in paths if "/pip/" in path or "setuptools" in path] == []
    labels = config(engine, images.target(name))["Labels"]
    prefix = "org.opencontainers.image"
    assert labels[f"{prefix}.title"] == {"bundle": "imds-detour"}.get(name, f"imds-detour-{name}")
    assert labels[f"{prefix}.licenses"] == "MIT"
    assert labels[f"{prefix}.description"]
    assert labels[f"{prefix}.version"] == names.version()
    assert labels[f"{prefix}.source"] == names.publisher().repository
    assert labels[f"{prefix}.revision"] == "unknown"  # `make images` and a release give the commit
    if name == "ctl":  # the sidecar's health check needs no shell
        check = config(engine, images.target(name))["Healthcheck"]
        assert check["Test"] == ["CMD", "/opt/imds-detour/bin/imds-detourctl", "check"]


def test_mock_runs_without_privileges(scene: Scene) -> None:
    """The mock runs without root and capabilities, on a read-only root file system."""
    hardened = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
    mock = scene.lan.start(*hardened, scene.images.target("mock"))
    mock.says("listening on")
    owners = scene.lan.engine.says("top", mock.name, "-o", "pid,uid,gid").splitlines()[1:]
    assert [line.split()[1:] for line in owners] == [["65534", "65534"]]
    url = f"http://{mock.address()}:1338/latest/meta-data/instance-id"
    done = scene.lan.run("imds-detour-test/debian", *fetch("debian", url))
    assert done.stdout == "i-1234567890abcdef0", done.stderr


def test_mock_stops_at_once(scene: Scene) -> None:
    """The mock as PID 1 ends at the signal of `docker stop` with status 0."""
    mock = scene.lan.start(scene.images.target("mock"))
    mock.says("listening on")
    assert mock.seconds_to_stop() < 5, "Docker's own grace is ten seconds"
    assert mock.inspect(".State.ExitCode") == 0


def test_images_print_version_and_help(images: Images, lan: Lan) -> None:
    """`docker run` prints the version or the help; imds-detourctl is on its image's PATH, for Kubernetes manifests."""
    assert lan.run(images.target("bundle")).stdout.startswith("imds-detour ")
    assert "usage: imds-detourctl" in lan.run(images.target("ctl"), "--help").stdout
    by_path = lan.run("--entrypoint", "imds-detourctl", images.target("ctl"), "--version")
    assert by_path.stdout.startswith("imds-detourctl "), by_path.stderr


def test_build_context_holds_only_its_inputs() -> None:
    """A new file in the root is not in the build context unless .dockerignore names it."""
    with open(f"{ROOT}/.dockerignore") as file:
        lines = [line.strip() for line in file if line.strip() and not line.startswith("#")]
    assert lines[0] == "*"
