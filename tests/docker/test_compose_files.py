"""Compose files, checked by both versions of Compose."""

import glob
import json
import os
import re
import subprocess

import pytest

from tests.docker.engine import ROOT

COMPOSE_FILES = sorted([*glob.glob(f"{ROOT}/docker/compose*.yaml"), f"{ROOT}/compose.yaml"])


def config(compose: tuple[str, ...], file: str) -> subprocess.CompletedProcess[str]:
    """Return the result of `config`, by which Compose checks a file."""
    return subprocess.run([*compose, "--file", file, "config"], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("file", COMPOSE_FILES, ids=os.path.basename)
def test_both_composes_accept_the_file_with_pinned_images(compose: tuple[str, ...], file: str) -> None:
    """Both versions of Compose accept each file without a warning; each pulled image has a version and a registry."""
    done = config(compose, file)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    built_here = {"imds-detour-debug", "ec2-metadata-app", "imds-detour", "imds-detour-ctl"}
    pulled = set(re.findall(r"^ *image: (\S+)$", done.stdout, re.MULTILINE)) - built_here
    assert pulled
    assert [image for image in pulled if ":" not in image.rpartition("/")[2] or image.endswith(":latest")] == []
    # Podman asks which registry is meant, or refuses, when an image has none.
    assert [image for image in pulled if "." not in image.partition("/")[0]] == []


def test_compose_refuses_an_unknown_key(compose: tuple[str, ...], tmp_path: object) -> None:
    """Negative control: Compose refuses a file with an unknown key."""
    broken = os.path.join(str(tmp_path), "compose.yaml")
    with open(broken, "w") as file:
        json.dump({"services": {"app": {"image": "x:1", "cap_adds": ["NET_ADMIN"]}}}, file)
    assert config(compose, broken).returncode
