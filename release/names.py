"""The names of a release: its version, where it is published, and how its files and images are called."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROJECT = "imds-detour"
PLACEHOLDER = "example__owner"
"""The owner before anyone has set one. GitHub allows no underscore in the name of an account."""
IMAGES = {"bundle": PROJECT, "ctl": f"{PROJECT}-ctl", "mock": f"{PROJECT}-mock"}
"""The name of each published image, by its target in docker/Dockerfile."""
ARCHITECTURES = ("amd64", "arm64")
"""As Debian and Docker call them."""
PUBLISH = "release/publish.env"
SOURCE = "src/imds_detour/__init__.py"
CHANGELOG = "CHANGELOG.md"
SUMS = "SHA256SUMS"
VERSION = re.compile(r"\d+\.\d+\.\d+")
"""The only form of a version: docs, images and packages agree on it without translation."""


class ReleaseError(Exception):
    """A step of the release cannot be done; the text is one line for the maintainer."""


@dataclass(frozen=True)
class Publisher:
    """The registry's host and the account there, which is the account on GitHub in lower case."""

    registry: str
    owner: str

    def image(self, target: str) -> str:
        """Return the name of the published image of a target, without a tag."""
        return f"{self.registry}/{self.owner}/{IMAGES[target]}"

    @property
    def repository(self) -> str:
        """Return the address of the repository."""
        return f"https://github.com/{self.owner}/{PROJECT}"


def read(name: str, root: str = ROOT) -> str:
    """Return the text of a file of the project."""
    with open(os.path.join(root, name), encoding="utf-8") as file:
        return file.read()


def write(name: str, text: str, root: str = ROOT) -> None:
    """Replace the text of a file of the project."""
    with open(os.path.join(root, name), "w", encoding="utf-8") as file:
        file.write(text)


def version(root: str = ROOT) -> str:
    """Return the version, which is written in the package's __init__.py only."""
    return read(SOURCE, root).split('__version__ = "')[1].split('"')[0]


def publisher(root: str = ROOT) -> Publisher:
    """Return where releases are published, from release/publish.env."""
    lines = (line.partition("=") for line in read(PUBLISH, root).splitlines() if line and line[0] != "#")
    values = {name: value for name, _, value in lines}
    return Publisher(values["REGISTRY"], values["OWNER"])


def archive(architecture: str) -> str:
    """Return the name of a bundle's archive. It has no version, so that a link to the latest release stays valid."""
    return f"{PROJECT}-linux-{architecture}.tar.gz"


def bill_of_materials(architecture: str) -> str:
    """Return the name of a bundle's bill of materials (CycloneDX)."""
    return f"{PROJECT}-linux-{architecture}.cdx.json"
