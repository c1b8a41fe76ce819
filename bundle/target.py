"""The machine that a bundle is for, and the root file system that has its Debian packages."""

from __future__ import annotations

import os
import sys
import sysconfig
from dataclasses import dataclass

from bundle import debian
from bundle.contents import DEBIAN_PACKAGES
from bundle.programs import BundleError, run

TRIPLETS = {"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}
"""Debian's multiarch name (wiki.debian.org/Multiarch/Tuples) of each architecture that can be cross-built."""


@dataclass(frozen=True, slots=True)
class Target:
    """A machine and its root file system.

    Attributes:
        architecture: Debian's name, such as arm64.
        triplet: Debian's multiarch name, which begins the names of its compiler and tools.
        root: the folder with its packages; empty for this machine, so that a path is ``root`` and an absolute path.

    """

    architecture: str
    triplet: str
    root: str

    @property
    def machine(self) -> str:
        """The machine as ``uname -m`` prints it."""
        return self.triplet.partition("-")[0]

    @property
    def compiler(self) -> str:
        """The command of the C compiler."""
        return f"{self.triplet}-gcc"

    @property
    def extension_suffix(self) -> str:
        """The suffix of extension modules (PEP 3149)."""
        return f".{sys.implementation.cache_tag}-{self.triplet}.so"


def prepare(architecture: str, cache: str) -> Target:
    """Return the target for Debian's name of an architecture; empty is this machine's.

    This machine's packages are used where they are installed. Those of another architecture are fetched into the
    folder ``cache`` and unpacked there; none of their programs run.
    """
    own = run("dpkg", "--print-architecture").strip()
    if architecture in ("", own):
        return Target(own, sysconfig.get_config_var("MULTIARCH"), "")
    if architecture not in TRIPLETS:
        raise BundleError(f"ARCH={architecture} is not an architecture of the bundle: use {' or '.join(TRIPLETS)}")
    triplet = TRIPLETS[architecture]
    gcc = run(f"{triplet}-gcc", "-dumpversion").strip()
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    names = [name.format(python=python, gcc=gcc) for name in DEBIAN_PACKAGES]
    packages = debian.Archive(architecture, cache).download(names)
    return Target(architecture, triplet, debian.unpack(packages, os.path.join(cache, "root")))
