"""The wheel: what pip needs to know of it, and the files that must not be missing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from email import message_from_bytes
from typing import TYPE_CHECKING

import pytest

from imds_detour import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator
    from email.message import Message

ROOT = os.path.join(os.path.dirname(__file__), "..", "..")
INFO = f"imds_detour-{__version__}.dist-info"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """Build it, without a network, from the checkout as it stands."""
    folder = str(tmp_path_factory.mktemp("wheel"))
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=ROOT, check=True)
    (name,) = os.listdir(folder)
    assert name == f"imds_detour-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(folder, name)) as built:
        yield built


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    """Read its core metadata."""
    return message_from_bytes(wheel.read(f"{INFO}/METADATA"))


def test_name_version_and_python(metadata: Message) -> None:
    """As the code and the README have them."""
    assert (metadata["Name"], metadata["Version"]) == ("imds-detour", __version__)
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Summary"]
    assert metadata["Description-Content-Type"] == "text/markdown"


def test_three_dependencies_each_bounded_on_both_sides(metadata: Message) -> None:
    """A new major version of one of them must not reach users before our tests."""
    needed = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert sorted(re.split("[<>=]", line)[0] for line in needed) == ["dnspython", "python-iptables", "tenacity"]
    for line in needed:
        bounds = line[len(re.split("[<>=]", line)[0]) :].split(",")
        assert sorted(re.match("[<>=]+", bound)[0] for bound in bounds) == ["<", ">="]  # type: ignore[index]


def test_two_commands(wheel: zipfile.ZipFile) -> None:
    """The entrypoint, and the one for people."""
    assert wheel.read(f"{INFO}/entry_points.txt").decode().split("\n") == [
        "[console_scripts]",
        "imds-detour = imds_detour.bootstrap.pip:main",
        "imds-detourctl = imds_detour.ctl.main:main",
        "",
    ]


def test_every_source_file_is_in_it_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    """Types and data of the mock included; tests, caches and build tools are not."""
    packed = {name for name in wheel.namelist() if not name.startswith(INFO)}
    sources = {
        os.path.relpath(os.path.join(folder, name), f"{ROOT}/src")
        for folder, _, names in os.walk(f"{ROOT}/src")
        for name in names
        if not folder.endswith("__pycache__")
    }
    assert packed == sources
    assert {"imds_detour/py.typed", "imds_detour_mock/mock_data.json"} <= packed


def test_the_licence_is_named_and_included(wheel: zipfile.ZipFile, metadata: Message) -> None:
    """MIT, with its text."""
    assert "MIT" in (metadata["License"] or metadata["License-Expression"])
    assert wheel.read(f"{INFO}/licenses/LICENSE").startswith(b"MIT License")
