"""The images of the tests: imds-detour's Dockerfiles on the base images of scripts/test-bases."""

import contextlib
import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator

from tests.docker.engine import HOME, ROOT, TEST_SOCKET, Engine

PREFIX = "imds-detour-test"
BASES = ("debian", "busybox", "empty")
"""The base images, instead of glibc images, Alpine, and scratch or distroless images."""
TARGETS = ("bundle", "ctl", "mock", "debug")
"""Those of docker/Dockerfile."""
BUILD_SECONDS = 900
BUILDX = f"{HOME}/debian13/usr/libexec/docker/cli-plugins/docker-buildx"
"""Debian 13's buildx, where `make engine` puts it; elsewhere it is the docker command's plugin."""


class Images:
    """Builds an image at first use; the engine's cache has the images of other processes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._built: set[str] = set()

    def target(self, name: str) -> str:
        """Return the image of one of TARGETS."""
        if name != "bundle":
            self.target("bundle")
        return self._build(
            name,
            *("--file", "docker/Dockerfile", "--target", name),
            *("--build-arg", f"BASE={PREFIX}/debian", "--build-arg", f"APP={PREFIX}/debian"),
            ".",
        )

    def for_platforms(self, platforms: Iterable[str], output: str) -> bool:
        """Let BuildKit build the bundle's image for these platforms in one call; return False without buildx."""
        self.target("bundle")  # the base images are there
        for command in ((BUILDX,), ("docker", "buildx")):
            if (
                not shutil.which(command[0])
                or subprocess.run([*command, "version"], capture_output=True, check=False).returncode
            ):
                continue
            options = ("--network", "host", "--allow", "network.host", "--platform", ",".join(platforms))
            stage = ("--file", "docker/Dockerfile", "--target", "bundle", "--build-arg", f"BASE={PREFIX}/debian", ".")
            with _one_at_a_time():
                done = subprocess.run(
                    [*command, "build", *options, "--output", output, *stage],
                    cwd=ROOT,
                    env=self._engine.environ(),
                    capture_output=True,
                    text=True,
                    timeout=BUILD_SECONDS,
                    check=False,
                )
            assert done.returncode == 0, done.stderr
            return True
        return False

    def app(self, base: str) -> str:
        """Return the image of docker/app.Dockerfile on one of BASES, or on another image of these tests."""
        if base == "moto":
            self.moto()
        return self._build(
            f"app-{base}",
            *("--file", "docker/app.Dockerfile", "--build-arg", f"IMDS_DETOUR={self.target('bundle')}"),
            *("--build-arg", f"BASE={PREFIX}/{base}"),
            "tests/docker",
        )

    def moto(self) -> str:
        """Return an image with moto's server and boto3, from PyPI."""
        return self._build("moto", "--file", "tests/docker/moto.Dockerfile", "tests/docker")

    def _build(self, name: str, *arguments: str) -> str:
        image = f"{PREFIX}/{name}"
        if image not in self._built:
            command = ("build", "--network", "host", "--tag", image, *arguments)
            with _one_at_a_time():
                self._engine.run(*command, timeout=BUILD_SECONDS)
            self._built.add(image)
        return image


def make_bases(engine: Engine) -> str:
    """Build the missing base images; return why that fails, or an empty string."""
    with _one_at_a_time():
        done = subprocess.run(
            [f"{ROOT}/scripts/test-bases"],
            env=engine.environ(),
            capture_output=True,
            text=True,
            timeout=BUILD_SECONDS,
            check=False,
        )
    return done.stderr.strip() if done.returncode else ""


def remove_all(engine: Engine) -> None:
    """Remove all images of these tests, but not from `make engine`'s engine, where they are a cache."""
    if engine.host == f"unix://{TEST_SOCKET}":
        return
    with contextlib.suppress(AssertionError):  # one that another run uses
        names = engine.says("images", "--format", "{{.Repository}}", f"{PREFIX}/*").split()
        engine.run("rmi", "--force", *names)


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    os.makedirs(f"{ROOT}/.cache/docker", exist_ok=True)
    with open(f"{ROOT}/.cache/docker/lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def fetch(image: str, url: str) -> tuple[str, ...]:
    """Return the command that GETs a URL and prints the answer in an app image."""
    if image.endswith(("debian", "moto", "debug")):
        return "curl", "-sS", "--max-time", "5", url
    return ("/get" if image.endswith("empty") else "get"), url


def nothing(image: str) -> tuple[str, ...]:
    """Return the command that sleeps for an hour in an app image."""
    return ("/busybox",) * image.endswith("empty") + ("sleep", "3600")
