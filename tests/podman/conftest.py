"""Fixtures of the Podman tests: rootful and rootless, with images made of the bundle and busybox."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.bundle.conftest import bundle
from tests.podman.engine import ROOT, Namespaces, Podman, start_namespaces

__all__ = ["bundle"]

PROGRAMS = ("podman", "runc", "conmon", "newuidmap", "slirp4netns", "catatonit", "musl-gcc", "busybox", "setpriv")
PREFIX = "localhost/imds-detour-test"
LAN = "lan"
MOCK = "mock_metadata"

_numbers = count(1)


@pytest.fixture(scope="session")
def namespaces() -> Iterator[Namespaces]:
    """Yield the namespaces of all engines."""
    missing = [name for name in PROGRAMS if not shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")]
    if os.getuid() or missing:
        pytest.skip(f"root and {', '.join(missing) or 'nothing else'} are needed: sudo make test-podman")
    made = start_namespaces()
    yield made
    made.close()


@pytest.fixture(scope="session")
def archives(bundle: str) -> Iterator[Path]:
    """Yield a folder, readable by all users, with the root file systems of the images."""
    with tempfile.TemporaryDirectory(prefix="podman-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        root = folder / "plain"
        for path in ("bin", "etc", "tmp", "root"):
            (root / path).mkdir(parents=True)
        shutil.copy(shutil.which("busybox") or "", root / "bin/busybox")
        for applet in ("sh", "sleep", "cat", "id", "env", "grep"):
            (root / "bin" / applet).symlink_to("busybox")
        source = f"{ROOT}/tests/docker/get.c"
        subprocess.run(["musl-gcc", "-static", "-O2", "-o", str(root / "bin/get"), source], check=True)
        (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/:/bin/sh\n")
        (root / "etc/group").write_text("root:x:0:\napp:x:1000:\n")
        subprocess.run(["tar", "-C", str(root), "-cf", str(folder / "plain.tar"), "."], check=True)
        rename = ("--transform", "s,^imds-detour,opt/imds-detour,")
        command = ["tar", "-C", os.path.dirname(bundle), *rename, "-cf", str(folder / "bundle.tar"), "imds-detour"]
        subprocess.run(command, check=True)
        yield folder


def stage(name: str) -> str:
    """Return a stage of docker/Dockerfile that is built on the bundle's image, as a Dockerfile."""
    with open(f"{ROOT}/docker/Dockerfile") as file:
        (found,) = (part for part in file.read().split("\nFROM ") if part.startswith(f"bundle AS {name}\n"))
    return f"FROM {PREFIX}/bundle\n" + found.partition("\n")[2]


APP = f"""
FROM {PREFIX}/plain
COPY --from={PREFIX}/bundle /opt/imds-detour /opt/imds-detour
ENTRYPOINT ["/opt/imds-detour/bin/imds-detour"]
CMD ["sleep", "3600"]
"""


def make_images(podman: Podman, archives: Path) -> None:
    """Import the archives, and build the images of the app, the sidecar and the mock."""
    podman.run("import", "--change", "ENV PATH=/bin", str(archives / "plain.tar"), f"{PREFIX}/plain")
    entrypoint = 'ENTRYPOINT ["/opt/imds-detour/bin/imds-detour"]'
    podman.run("import", "--change", entrypoint, str(archives / "bundle.tar"), f"{PREFIX}/bundle")
    for name, text in (("app", APP), ("ctl", stage("ctl")), ("mock", stage("mock"))):
        file = archives / f"{name}.Dockerfile"
        file.write_text(text)
        podman.run("build", "--pull-never", "--file", str(file), "--tag", f"{PREFIX}/{name}", str(archives / "plain"))


@pytest.fixture(scope="session", params=["rootful", "rootless"])
def podman(request: pytest.FixtureRequest, namespaces: Namespaces, archives: Path) -> Iterator[Podman]:
    """Yield an engine with the images, and a mock on a closed network."""
    folder = Path(tempfile.mkdtemp(prefix="podman-test-"))
    (folder / "home").mkdir()
    rootless = request.param == "rootless"
    if rootless:
        subprocess.run(["chown", "-R", "61000:61000", str(folder)], check=True)
    made = Podman(namespaces, str(folder), rootless=rootless)
    try:
        make_images(made, archives)
        made.run("network", "create", "--internal", LAN)
        start(made, "--name", "test-mock", "--network-alias", MOCK, f"{PREFIX}/mock")
        made.says("test-mock", "listening on")
        yield made
    finally:
        made.run("rm", "--all", "--force", "--time", "0", check=False)
        made.run("system", "reset", "--force", check=False)
        subprocess.run(["rm", "-rf", "--", str(folder)], check=True)


def start(podman: Podman, *arguments: str, network: str = LAN) -> None:
    """Start a container in the background."""
    podman.run("run", "--detach", "--pull", "never", "--network", network, *arguments)


@pytest.fixture
def name(podman: Podman) -> Iterator[str]:
    """Yield a new name for a container, which is removed after the test."""
    made = f"test-{next(_numbers)}"
    yield made
    podman.run("rm", "--force", "--time", "0", "--ignore", made)
