"""The measured programs: two scripts, imds-detour from pip and from the bundle, and its peers."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
HERE = os.path.join(ROOT, "bench")
BUILD = os.path.join(ROOT, "build", "bench")
BUNDLE = os.path.join(ROOT, "build", "imds-detour")
TOOLS = ("stamp", "pathcost")
LEAST = (
    "interpreter",
    "modules",
    "python-iptables",
    "nftables",
    "promise by python-iptables",
    "promise by nftables",
)
"""What least.py may do."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A program that waits for a service and then starts an app.

    Attributes:
        name: its name in the table.
        argv: its command line, before the app's.
        settings: its additional environment variables.
        waits_for_name: whether it waits while the name does not resolve.

    """

    name: str
    argv: tuple[str, ...]
    settings: tuple[tuple[str, str], ...] = ()
    waits_for_name: bool = True

    def command(self, app: Sequence[str]) -> list[str]:
        """Return the command line for an app."""
        return [*self.argv, *app]

    def using(self, name: str, **settings: str) -> Subject:
        """Return the same program with additional settings."""
        return Subject(name, self.argv, (*self.settings, *settings.items()), self.waits_for_name)


def tool(name: str) -> str:
    """Return the path of a compiled helper."""
    return os.path.join(BUILD, name)


def script() -> Subject:
    """Return the script that does the same work, the baseline."""
    return Subject("script", ("/bin/bash", os.path.join(HERE, "samework.sh")))


def unverified() -> Subject:
    """Return the original script, which guards and verifies nothing."""
    return Subject("script", ("/bin/bash", os.path.join(HERE, "baseline.sh")))


def installed() -> Subject:
    """Return imds-detour as installed by pip under the distribution's Python."""
    return Subject("pip install", (os.path.join(BUILD, "venv", "bin", "imds-detour"),))


def bundle() -> Subject | None:
    """Return imds-detour from the bundle, or None if that is not built (``make bundle``)."""
    program = os.path.join(BUNDLE, "bin", "imds-detour")
    return Subject("bundle", (program,)) if os.access(program, os.X_OK) else None


def least(name: str, port: int) -> list[Subject]:
    """Return the programs that do the least of a start (least.py), by pip's interpreter and by the bundle's."""
    venv = os.path.join(BUILD, "venv", "bin", "python")
    return [*_least((venv,), "", "pip install", name, port), *_least_of_bundle(name, port)]


def _least(start: Sequence[str], modules: str, form: str, name: str, port: int) -> list[Subject]:
    return [
        Subject(f"{what} alone, {form}", (*start, f"{HERE}/least.py", what, modules, name, str(port))) for what in LEAST
    ]


def _least_of_bundle(name: str, port: int) -> list[Subject]:
    existing = (
        glob.glob(f"{BUNDLE}/lib/ld-*"),
        glob.glob(f"{BUNDLE}/libexec/python*"),
        glob.glob(f"{BUNDLE}/lib/python*"),
    )
    if not all(existing):
        return []
    loader, python, modules = (paths[0] for paths in existing)
    start = (loader, "--inhibit-cache", "--library-path", f"{BUNDLE}/lib", python, "-I", "-S", "-X", "utf8")
    return _least(start, modules, "bundle", name, port)


def detours() -> list[Subject]:
    """Return each installed form of imds-detour."""
    return [installed(), *filter(None, [bundle()])]


def peers(host: str, port: int) -> list[Subject]:
    """Return the installed peers; each waits for the port, or for an answer there."""
    at = f"{host}:{port}"
    url = f"http://{at}/latest/meta-data/instance-id"
    loop = Subject("curl; sleep 1", (os.path.join(HERE, "loop.sh"), url))
    existing = [loop] if shutil.which("curl") else []
    if shutil.which("wait-for-it"):
        existing.append(Subject("wait-for-it (Debian)", ("wait-for-it", "-q", "-t", "30", at, "--")))
    python = os.path.join(BUILD, "peers", "bin", "wait-for-it")
    if os.path.exists(python):
        existing.append(Subject("wait-for-it (PyPI)", (python, "-q", "-t", "30", "-s", at, "--")))
    node = os.path.join(BUILD, "node", "node_modules", ".bin", "wait-on")
    if os.path.exists(node):
        shell = f'{node} -t 30s tcp:{at} >/dev/null && exec "$@"'
        existing.append(Subject("wait-on (npm)", ("/bin/sh", "-c", shell, "sh")))
    return existing


def prepare() -> list[str]:
    """Build and install the subjects outside the sandbox, and return the missing ones with the reasons."""
    os.makedirs(BUILD, exist_ok=True)
    for name in TOOLS:
        source = os.path.join(HERE, f"{name}.c")
        if not os.path.exists(tool(name)) or os.path.getmtime(tool(name)) < os.path.getmtime(source):
            subprocess.run(["cc", "-O2", "-o", tool(name), source], check=True)
    python = "/usr/bin/python3" if _new_enough("/usr/bin/python3") else sys.executable
    missing = [] if bundle() else ["the bundle: not built yet (`make bundle`)"]
    venv = os.path.join(BUILD, "venv")
    _venv(python, venv, ROOT)
    if not _tried("peers"):
        _attempt(lambda: _venv(python, os.path.join(BUILD, "peers"), "wait-for-it"))
    if shutil.which("npm") and not _tried("node"):
        prefix = os.path.join(BUILD, "node")
        _attempt(
            lambda: _quiet(["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", prefix, "wait-on"])
        )
    known = {peer.name for peer in peers("host", 1)}
    wanted = ("wait-for-it (Debian)", "wait-for-it (PyPI)", "wait-on (npm)")
    missing += [f"{name}: could not be installed here" for name in wanted if name not in known]
    return missing


def _tried(name: str) -> bool:
    return os.path.isdir(os.path.join(BUILD, name))


def _attempt(install: object) -> None:
    try:
        install()  # type: ignore[operator]  # a callable without arguments
    except subprocess.CalledProcessError as error:
        sys.stderr.write(f"bench: {error}\n")


def _venv(python: str, where: str, what: str) -> None:
    if not os.path.exists(os.path.join(where, "bin", "python")):
        _quiet([python, "-m", "venv", where])
    pip = [
        os.path.join(where, "bin", "python"),
        "-m",
        "pip",
        "install",
        "-q",
        "--disable-pip-version-check",
        "--use-pep517",
    ]
    done = os.path.join(where, ".done")
    if what != ROOT:
        _quiet([*pip, what])
    elif not os.path.exists(done):
        _quiet([*pip, what])
        open(done, "w").close()
    elif _changed() > os.path.getmtime(done):  # the version stays the same while the code changes
        _quiet([*pip, "--no-deps", "--force-reinstall", what])
        os.utime(done)


def _changed() -> float:
    """Return the time of the last change of imds-detour's sources."""
    existing = [os.path.join(ROOT, "pyproject.toml")]
    for folder, _, names in os.walk(os.path.join(ROOT, "src")):
        existing += [os.path.join(folder, name) for name in names if name.endswith((".py", ".json"))]
    return max(map(os.path.getmtime, existing))


def _quiet(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _new_enough(python: str) -> bool:
    check = "import sys, ensurepip; sys.exit(sys.version_info < (3, 11))"
    return os.path.exists(python) and subprocess.run([python, "-c", check], check=False).returncode == 0
