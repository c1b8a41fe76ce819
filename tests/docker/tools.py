"""Tools that start containers for users, from npm and PyPI, in .cache/docker."""

import hashlib
import os
import shutil
import subprocess
import sys

import pytest

from tests.docker.engine import ROOT

PINS = f"{ROOT}/tests/docker/pins"
INSTALL_SECONDS = 600


def node_modules() -> str:
    """Return the folder of the npm packages in pins/package.json, installed once."""
    if not shutil.which("npm"):
        pytest.skip("npm is not installed; on Debian: apt-get install -y nodejs npm")
    quietly = ("--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
    return _installed("package.json", ("npm", "install", *quietly)) + "/node_modules"


def python() -> str:
    """Return a Python with the packages in pins/python.txt, installed once."""
    install = f"'{sys.executable}' -m venv . && bin/pip install --quiet --disable-pip-version-check -r python.txt"
    return _installed("python.txt", ("sh", "-c", install)) + "/bin/python"


def _installed(pins: str, command: tuple[str, ...]) -> str:
    """Return the folder in which a command has installed these pins."""
    with open(f"{PINS}/{pins}", "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()[:12]
    folder = f"{ROOT}/.cache/docker/{pins.partition('.')[0]}-{digest}"
    if not os.path.exists(folder):
        new = f"{folder}.{os.getpid()}"
        os.makedirs(new)
        shutil.copy(f"{PINS}/{pins}", new)
        done = subprocess.run(
            command, cwd=new, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False, env=os.environ
        )
        assert done.returncode == 0, done.stderr
        os.rename(new, folder)
    return folder
