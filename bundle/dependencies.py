"""The bundle's dependencies from PyPI, in a virtual environment that is a cache for the next build."""

from __future__ import annotations

import glob
import os
import shutil
import sys
import tarfile
import tomllib

from bundle import modules
from bundle.contents import EXTRAS
from bundle.programs import BundleError, run

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PIP = ("--quiet", "--disable-pip-version-check", "--no-cache-dir", "--use-pep517", "--no-binary=python-iptables")
"""A wheel from pip's cache or from a folder of wheels may be another build, and lack the licence."""
BUILD_SYSTEM = ("setuptools", "wheel")
"""What pip builds python-iptables with."""
WRAPPER = "libxtwrapper/wrapper.c"
"""The C file of python-iptables, in its source distribution. It includes nothing of Python."""


def install(folder: str) -> str:
    """Install the dependencies of pyproject.toml, and return the folder of their modules; see wrapper_source()."""
    with open(os.path.join(HERE, "pyproject.toml"), "rb") as file:
        project = tomllib.load(file)["project"]
    optional = project.get("optional-dependencies", {})
    wanted = [*project["dependencies"], *(line for extra in EXTRAS for line in optional[extra])]
    stamp, contents = os.path.join(folder, "installed"), "\n".join((sys.version, *wanted, *PIP))
    place = os.path.join(folder, "lib", modules.python_name(), "site-packages")
    try:
        with open(stamp) as file:
            if file.read() == contents:
                return place
    except FileNotFoundError:
        pass
    shutil.rmtree(folder, ignore_errors=True)
    run(sys.executable, "-m", "venv", folder)
    pip, packages = (f"{folder}/bin/python", "-m", "pip"), f"{folder}/packages"
    run(*pip, "download", *PIP, f"--dest={packages}", *wanted, *BUILD_SYSTEM)
    offline = ("--no-index", f"--find-links={packages}")
    run(*pip, "install", *PIP, "--no-compile", *offline, *wanted)
    _extract_wrapper(packages, wrapper_source(folder))
    with open(stamp, "w") as file:
        file.write(contents)
    return place


def wrapper_source(folder: str) -> str:
    """Return the path of python-iptables' C file, which the bundle compiles for its target."""
    return os.path.join(folder, "wrapper.c")


def _extract_wrapper(packages: str, path: str) -> None:
    for archive in glob.glob(f"{glob.escape(packages)}/python?iptables-*.tar.gz"):
        with tarfile.open(archive) as tar:
            for entry in tar:
                if entry.name.endswith(f"/{WRAPPER}") and (content := tar.extractfile(entry)):
                    with open(path, "wb") as file:
                        shutil.copyfileobj(content, file)
                    return
    raise BundleError(f"no source distribution of python-iptables in {packages} has {WRAPPER}")
