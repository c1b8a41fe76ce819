"""The bundle, built once for all tests, and root file systems to run it in."""

import fcntl
import glob
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.hosts.network import METADATA, Network

PROJECT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
"""What `uname -m` prints, by Debian's name of each architecture that a bundle can be cross-built for."""
INPUTS = ("src", "bundle", "scripts/bundle", "pyproject.toml", "LICENSE")
HERE = os.path.dirname(os.path.abspath(__file__))
PLACE = "opt/imds-detour"
"""The bundle's folder in an image, as in the README."""
ENTER = """
mount --bind "$0" "$0"
cd "$0"
mount -t proc proc proc
for file in dev/null etc/resolv.conf etc/hosts; do mount --bind /$file $file; done
[ "$1" = writable ] || mount -o remount,ro,bind "$PWD"
shift
exec chroot . "$@"
"""
"""Enter a root as a container engine does, with /proc, /dev/null and the resolver's files."""


def _newest(path: str) -> float:
    below = (os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names if name[-4:] != ".pyc")
    return max((os.stat(file).st_mtime for file in below), default=os.stat(path).st_mtime)


def build(architecture: str) -> str:
    """Return the folder of an architecture's bundle as `make bundle` names it, built again if an input is newer."""
    native = MACHINES[architecture] == os.uname().machine
    folder = f"{PROJECT}/build/imds-detour" if native else f"{PROJECT}/build/{architecture}/imds-detour"
    os.makedirs(f"{PROJECT}/build", exist_ok=True)
    with open(f"{PROJECT}/build/lock", "w") as lock:  # pytest-xdist: the first one builds
        fcntl.flock(lock, fcntl.LOCK_EX)
        archive = f"{folder}.tar.gz"
        inputs = max(_newest(f"{PROJECT}/{name}") for name in INPUTS)
        if not os.path.exists(archive) or os.stat(archive).st_mtime < inputs:
            command = [f"{PROJECT}/scripts/bundle", folder, architecture]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                make = "make bundle" if native else f"make bundle ARCH={architecture}"
                pytest.skip(f"the bundle cannot be built; `{make}` says: {done.stderr.strip()[-300:]}")
    return folder


@pytest.fixture(scope="session")
def bundle() -> str:
    """Return the folder of this machine's bundle."""
    own = os.uname().machine
    return build(next(name for name, machine in MACHINES.items() if machine == own))


def python(bundle: str) -> list[str]:
    """Return the command line of the bundle's interpreter, without the launcher."""
    (loader,) = glob.glob(f"{bundle}/lib/ld-*")
    (interpreter,) = glob.glob(f"{bundle}/libexec/python*")
    return [loader, "--inhibit-cache", "--library-path", f"{bundle}/lib", interpreter, "-I", "-S"]


@dataclass(frozen=True, slots=True)
class Root:
    """A root file system with the bundle."""

    path: Path
    writable: bool = True

    def command(self, *words: str) -> list[str]:
        """Return the command line that runs a command in the root, with temporary mounts."""
        state = "writable" if self.writable else "read-only"
        return ["unshare", "--mount", "--", "sh", "-eu", "-c", ENTER, str(self.path), state, *words]


def make_root(path: Path, bundle: str, *, place: str = PLACE) -> Root:
    """Create a root with only the bundle, /app, and the files that engines add."""
    for folder in ("proc", "dev", "etc"):
        (path / folder).mkdir(parents=True)
    for file in ("dev/null", "etc/resolv.conf", "etc/hosts"):
        (path / file).touch()
    shutil.copytree(bundle, path / place, symlinks=True)
    compile_c("app.c", path / "app", "-static")
    return Root(path)


def compile_c(source: str, target: Path, *flags: str, compiler: str = "gcc") -> None:
    """Compile a C file of this folder."""
    subprocess.run([compiler, "-Os", *flags, "-o", str(target), f"{HERE}/{source}"], check=True)


def add_busybox(root: Root) -> None:
    """Copy a static busybox into a root, with sh as a link to it."""
    busybox = shutil.which("busybox") or pytest.skip("no busybox: apt-get install busybox-static")
    (root.path / "bin").mkdir()
    shutil.copy(busybox, root.path / "bin/busybox")
    (root.path / "bin/sh").symlink_to("busybox")


@pytest.fixture(scope="module")
def running() -> Iterator[Network]:
    """Yield a network with a running mock and DNS server."""
    with Network() as made:
        made.start_dns()
        made.start_mock()
        yield made


@pytest.fixture
def clean(running: Network, bundle: str) -> Iterator[Network]:
    """Yield the network without imds-detour's rules, and remove them after the test."""
    running.app.run(f"{bundle}/bin/imds-detourctl", "remove")
    assert METADATA not in running.rules()
    yield running
    running.app.run(f"{bundle}/bin/imds-detourctl", "remove")
