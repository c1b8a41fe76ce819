"""The wheel: its metadata and its files."""

import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from email import message_from_bytes
from email.message import Message

import pytest

from imds_detour import __version__

ROOT = os.path.join(os.path.dirname(__file__), "..", "..")
INFO = f"imds_detour-{__version__}.dist-info"
SHARED = f"imds_detour-{__version__}.data/data/share/"
COMPLETIONS = {
    "bash-completion/completions/imds-detourctl": "imds-detourctl.bash",
    "zsh/site-functions/_imds-detourctl": "_imds-detourctl",
    "fish/vendor_completions.d/imds-detourctl.fish": "imds-detourctl.fish",
}
"""The completion scripts below share/, where the shells look for them, and their files."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """Build the wheel from the checkout, without a network."""
    folder = str(tmp_path_factory.mktemp("wheel"))
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=ROOT, check=True)
    (name,) = os.listdir(folder)
    assert name == f"imds_detour-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(folder, name)) as built:
        yield built


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    """Read the wheel's core metadata."""
    return message_from_bytes(wheel.read(f"{INFO}/METADATA"))


def test_wheel_has_name_version_python_and_licence(wheel: zipfile.ZipFile, metadata: Message) -> None:
    """The wheel's name, version and Python version are those of the code and the README; it has the MIT licence."""
    assert (metadata["Name"], metadata["Version"]) == ("imds-detour", __version__)
    assert "MIT" in (metadata["License"] or metadata["License-Expression"])
    assert wheel.read(f"{INFO}/licenses/LICENSE").startswith(b"MIT License")
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Summary"]
    assert metadata["Description-Content-Type"] == "text/markdown"


def test_description_has_no_relative_link(metadata: Message) -> None:
    """The description is the README with absolute links, at the version's tag. Control: the README's are relative."""

    def relative(text: str) -> list[str]:
        return re.findall(r"\]\((?!https?:|#)[^)]*\)", text)

    description = str(metadata.get_payload(decode=False))
    with open(f"{ROOT}/README.md", encoding="utf-8") as readme:
        assert len(relative(readme.read())) > 10
    assert relative(description) == []
    assert f"/imds-detour/raw/v{__version__}/docs/start.svg)" in description
    assert f"/imds-detour/blob/v{__version__}/docs/comparison.md#you-do-not-need-this)" in description


def test_dependencies_have_both_bounds(metadata: Message) -> None:
    """The wheel has three dependencies, each with a lower and an upper bound."""
    needed = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert sorted(re.split("[<>=]", line)[0] for line in needed) == ["dnspython", "python-iptables", "tenacity"]
    for line in needed:
        bounds = line[len(re.split("[<>=]", line)[0]) :].split(",")
        assert sorted(re.match("[<>=]+", bound)[0] for bound in bounds) == ["<", ">="]  # type: ignore[index]


def test_wheel_has_two_commands_and_exactly_the_source_files(wheel: zipfile.ZipFile) -> None:
    """The wheel installs both programs and exactly the files of src, with types and mock data."""
    assert wheel.read(f"{INFO}/entry_points.txt").decode().split("\n") == [
        "[console_scripts]",
        "imds-detour = imds_detour.bootstrap.pip:main",
        "imds-detourctl = imds_detour.ctl.main:main",
        "",
    ]
    packed = {name for name in wheel.namelist() if not name.startswith((INFO, SHARED))}
    sources = {
        os.path.relpath(os.path.join(folder, name), f"{ROOT}/src")
        for folder, _, names in os.walk(f"{ROOT}/src")
        for name in names
        if not folder.endswith("__pycache__")
    }
    assert packed == sources
    assert {"imds_detour/py.typed", "imds_detour_mock/mock_data.json"} <= packed


def test_wheel_installs_the_completion_scripts_where_shells_look(wheel: zipfile.ZipFile) -> None:
    """Below its prefix the wheel installs the completion scripts of bash, zsh and fish, as the repository has them."""
    installed = {name.removeprefix(SHARED) for name in wheel.namelist() if name.startswith(SHARED)}
    assert installed == set(COMPLETIONS)
    for place, name in COMPLETIONS.items():
        with open(f"{ROOT}/src/imds_detour/ctl/completions/{name}", "rb") as script:
            assert wheel.read(f"{SHARED}{place}") == script.read()
