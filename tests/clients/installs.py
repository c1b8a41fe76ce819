"""Real clients and servers, installed from registries into .cache/clients: ``python -m tests.clients.installs``.

A part is a folder whose name contains a hash of its sources, so only changed parts are installed again. Debian's
packages are unpacked and not installed: the machine stays unchanged.
"""

import functools
import glob
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

HERE = os.path.dirname(os.path.abspath(__file__))
PROGRAMS = f"{HERE}/programs"
CACHE = os.path.join(os.path.dirname(os.path.dirname(HERE)), ".cache", "clients")
GO_PROGRAMS = {
    **{name: f"programs/{name}" for name in ("aws-go-v1", "aws-go-v2", "gcp-go")},
    "example": "../../examples/go",
}
"""Each Go program, and the folder of its main.go, relative to this file."""
NODE = 20
"""The oldest major version of Node.js that the pinned packages run on (their "engines")."""


class MissingError(Exception):
    """A part cannot be installed on this machine. The message is one line with a remedy."""


@dataclass(frozen=True, slots=True)
class Part:
    """A group of clients that are installed together.

    Attributes:
        name: the name, with which the folder's name starts.
        sources: the files that select the versions, relative to this file.
        host: returns other dependencies, such as an interpreter's version; may raise MissingError.
        build: installs into a folder; may raise MissingError.

    """

    name: str
    sources: tuple[str, ...]
    host: Callable[[], str]
    build: Callable[[str], None]

    @property
    def folder(self) -> str:
        """The folder of the installed part."""
        digest = hashlib.sha256(self.host().encode())
        for source in self.sources:
            with open(f"{HERE}/{source}", "rb") as file:
                digest.update(file.read())
        return f"{CACHE}/{self.name}-{digest.hexdigest()[:12]}"

    def missing(self) -> str:
        """Return why the part is not installed, or an empty string if it is."""
        try:
            if os.path.exists(f"{self.folder}/.complete"):
                return ""
            with open(self._reason_file) as file:
                return file.read()
        except MissingError as error:
            return str(error)
        except FileNotFoundError:
            return f"{self.name} clients are not installed: make test-clients"

    def install(self) -> str:
        """Install the part, replace an older version, and return a line that says the result."""
        began = time.monotonic()
        try:
            folder = self.folder
            if os.path.exists(f"{folder}/.complete"):
                return f"{self.name}: cached"
            self._remove()
            os.makedirs(folder)
            self.build(folder)
        except MissingError as error:
            self._remove()
            os.makedirs(CACHE, exist_ok=True)
            with open(self._reason_file, "w") as file:
                file.write(str(error))
            return f"{self.name}: left out: {error}"
        with open(f"{folder}/.complete", "w"):
            pass
        return f"{self.name}: installed in {time.monotonic() - began:.0f} s"

    @property
    def _reason_file(self) -> str:
        return f"{CACHE}/{self.name}.missing"

    def _remove(self) -> None:
        for old in glob.glob(f"{CACHE}/{self.name}[-.]*"):
            _run("rm", "-rf", "--", old)


def _run(*command: str, cwd: str | None = None, **environ: str) -> str:
    """Run a command and return what it printed, without the last newline."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        reasons = [line for line in done.stderr.splitlines() if line.strip()][-1:] or [f"status {done.returncode}"]
        raise MissingError(f"`{' '.join(command)[:80]}` failed: {reasons[0].strip()}")
    return done.stdout.rstrip("\n")


def _python() -> str:
    return sys.version


def _venv(folder: str, pins: str) -> None:
    _run(sys.executable, "-m", "venv", folder)
    quietly = ("--quiet", "--disable-pip-version-check", "--no-compile")
    _run(f"{folder}/bin/python", "-m", "pip", "install", *quietly, "-r", f"{HERE}/pins/{pins}")


@functools.cache
def _node() -> str:
    if not shutil.which("npm") or not shutil.which("node"):
        raise MissingError("node and npm are not installed; on Debian: apt-get install -y nodejs npm")
    version = _run("node", "--version")
    if int(version.removeprefix("v").partition(".")[0]) < NODE:
        raise MissingError(f"node is {version}; the pinned packages require {NODE} or later")
    return version


def _packages(folder: str, pins: str) -> None:
    shutil.copy(f"{HERE}/pins/{pins}", f"{folder}/package.json")
    quietly = ("--no-audit", "--no-fund", "--loglevel=error")
    _run("npm", "install", "--no-package-lock", "--ignore-scripts", *quietly, cwd=folder)


@functools.cache
def _debian() -> str:
    for tool in ("apt-get", "apt-cache", "dpkg"):
        if not shutil.which(tool):
            raise MissingError(f"no {tool}: cloud-init, nginx and the Go SDKs come from Debian's packages")
    with open("/etc/os-release") as file:
        return file.read()


def _unpack(folder: str) -> None:
    """Unpack cloud-init, nginx and busybox, and build the Go programs; then remove the Go compiler and the SDKs."""
    if os.geteuid() == 0:
        _run("apt-get", "update", "-qq")  # a container's lists may be empty, or older than the packages
    with open(f"{HERE}/pins/debian.txt") as file:
        wanted = [line.strip() for line in file if line.strip() and not line.startswith("#")]
    # golang-go has no files: it depends on the compiler and the library of one version.
    compiler = re.search(r"Depends: golang-([0-9.]+)-go", _run("apt-cache", "depends", "golang-go", LC_ALL="C"))
    if compiler is None:
        raise MissingError("the package lists have no golang-go: sudo apt-get update")
    version = compiler[1]
    names = [*wanted, f"golang-{version}-go", f"golang-{version}-src"]
    root = f"{folder}/root"
    os.mkdir(root)
    _run("apt-get", "download", "-qq", *names, cwd=folder)
    for package in glob.glob(f"{folder}/*.deb"):
        _run("dpkg", "-x", package, root)
        os.unlink(package)
    os.rename(f"{root}/usr/lib/python3/dist-packages/cloudinit", f"{folder}/cloudinit")
    os.mkdir(f"{folder}/bin")
    for program in ("nginx", "busybox"):
        (path,) = glob.glob(f"{root}/**/*bin/{program}", recursive=True)
        os.rename(path, f"{folder}/bin/{program}")
    go = f"{root}/usr/lib/go-{version}"
    variables = {"GOROOT": go, "GOPATH": f"{root}/usr/share/gocode", "GOCACHE": f"{root}/cache", "GO111MODULE": "off"}
    for program, source in GO_PROGRAMS.items():
        build = (f"{go}/bin/go", "build", "-o", f"{folder}/bin/{program}", ".")
        _run(*build, cwd=f"{HERE}/{source}", CGO_ENABLED="0", GOFLAGS="", **variables)
    _run("rm", "-rf", "--", root)


PARTS = {
    part.name: part
    for part in (
        Part(
            "debian", ("pins/debian.txt", *(f"{source}/main.go" for source in GO_PROGRAMS.values())), _debian, _unpack
        ),
        Part("moto", ("pins/moto.txt",), _python, functools.partial(_venv, pins="moto.txt")),
        Part("python", ("pins/python.txt",), _python, functools.partial(_venv, pins="python.txt")),
        Part("node", ("pins/package.json",), _node, functools.partial(_packages, pins="package.json")),
        Part("servers", ("pins/servers.txt",), _python, functools.partial(_venv, pins="servers.txt")),
        Part("mocks", ("pins/mocks.json",), _node, functools.partial(_packages, pins="mocks.json")),
    )
}


def main() -> None:
    """Install all parts, two at a time, and write a line per part to stderr."""
    if new := [part.name for part in PARTS.values() if part.missing()]:
        sys.stderr.write(f"clients: installing into .cache/clients, a minute or two: {', '.join(new)}\n")
    with ThreadPoolExecutor(2) as pool:
        for line in pool.map(Part.install, PARTS.values()):
            sys.stderr.write(f"clients: {line}\n")


if __name__ == "__main__":
    main()
