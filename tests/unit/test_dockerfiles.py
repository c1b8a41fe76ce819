"""The Dockerfiles have no finding of hadolint, the usual linter of Dockerfiles."""

import glob
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DOCKERFILES = sorted(
    os.path.relpath(path, ROOT)
    for folder in ("docker", "examples", "tests")
    for path in glob.glob(f"{ROOT}/{folder}/**/*Dockerfile", recursive=True)
)


def findings(path: str) -> str:
    """Return hadolint's findings, a line each."""
    command = [os.path.join(os.path.dirname(sys.executable), "hadolint"), "--no-color", path]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize("path", DOCKERFILES)
def test_dockerfile_has_no_finding(path: str) -> None:
    """Hadolint has nothing to say, with its default rules."""
    assert findings(path) == ""


def test_fixed_platform_of_a_stage_is_a_finding(tmp_path: Path) -> None:
    """Negative control: hadolint has something to say about a stage with a fixed platform."""
    (tmp_path / "Dockerfile").write_text("FROM --platform=linux/amd64 debian:12\n")
    assert "DL3029" in findings(str(tmp_path / "Dockerfile"))
