"""The build stage of docker/Dockerfile for each architecture, run by hand, since BuildKit is not on every machine."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.bundle.conftest import MACHINES, PROJECT, build

pytestmark = pytest.mark.slow


def stages() -> dict[str, list[list[str]]]:
    """Return the instructions of each stage of the Dockerfile as words, by the stage's name."""
    with open(f"{PROJECT}/docker/Dockerfile") as file:
        text = re.sub(r"^\s*(#.*)?\n", "", file.read(), flags=re.MULTILINE).replace("\\\n", " ")
    found: dict[str, list[list[str]]] = {"": []}
    for words in (line.split() for line in text.splitlines()):
        if words[0] == "FROM":
            found[words[-1]] = []
        found[list(found)[-1]].append(words)
    return found


@pytest.mark.parametrize("architecture", MACHINES)
def test_build_stage_makes_the_bundle_of_each_architecture(architecture: str, tmp_path: Path) -> None:
    """With only what its COPY lines name, and TARGETARCH, the stage makes the files of `make bundle`."""
    bundle, work, out = build(architecture), tmp_path / "src", tmp_path / "out"
    for cache in ("dependencies", "debian/packages"):  # what needs the network, which the tests have not
        if os.path.exists(f"{bundle}.{cache}"):
            shutil.copytree(f"{bundle}.{cache}", out / f"opt/imds-detour.{cache}", symlinks=True)
    for name, *words in stages()["build"]:
        if name == "COPY":
            *origins, place = words
            for origin in (f"{PROJECT}/{origin}" for origin in origins):
                if os.path.isdir(origin):
                    shutil.copytree(origin, work / place)
                else:
                    (work / place).mkdir(parents=True, exist_ok=True)
                    shutil.copy(origin, work / place)
        elif name == "RUN":
            command = " ".join(words).replace("/out/", f"{out}/")
            environ = {**os.environ, "TARGETARCH": architecture}
            subprocess.run(["sh", "-euc", command], cwd=work, env=environ, check=True, capture_output=True)
    assert os.listdir(out / "opt") == ["imds-detour"]
    compare = ["diff", "--recursive", "--no-dereference", bundle, str(out / "opt/imds-detour")]
    assert subprocess.run(compare, capture_output=True, text=True, check=False).stdout == ""


def test_nothing_but_the_build_stage_runs_on_the_image() -> None:
    """The build stage is on the machine that builds, and no other stage has a RUN line, so nothing is emulated."""
    found = stages()
    assert found["build"][0][1] == "--platform=${BUILDPLATFORM:-linux}"
    assert [name for name, lines in found.items() if "RUN" in (words[0] for words in lines)] == ["build"]
