"""The published images: how they are built for both architectures and pushed."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile

from release.files import run
from release.names import ARCHITECTURES, ROOT, ReleaseError, publisher, version

PLATFORMS = ",".join(f"linux/{name}" for name in ARCHITECTURES)
BUILDER = "imds-detour"


def revision() -> str:
    """Return the commit: GitHub's variable, else the checkout's HEAD."""
    return os.environ.get("GITHUB_SHA") or run("git", "rev-parse", "HEAD").strip()


def push_command(target: str, commit: str, metadata: str) -> list[str]:
    """Return the command that builds a target of docker/Dockerfile for both architectures, and pushes it.

    BuildKit adds a bill of materials and its provenance. docker/Dockerfile has version and repository as labels.

    Args:
        target: the stage of docker/Dockerfile
        commit: the label org.opencontainers.image.revision
        metadata: a file for buildx to write, which gets the digest
    """
    name = publisher().image(target)
    return [
        *("docker", "buildx", "build", "--builder", BUILDER, "--file", "docker/Dockerfile", "--target", target),
        *("--platform", PLATFORMS, "--build-arg", f"REVISION={commit}"),
        *("--tag", f"{name}:{version()}", "--tag", f"{name}:latest"),
        *("--sbom", "true", "--provenance", "mode=max", "--metadata-file", metadata, "--push", "."),
    ]


def push(target: str) -> str:
    """Build and push an image. Return its digest, ``sha256:...``, which covers both architectures.

    Raises:
        ReleaseError: docker failed (it has printed why), or named no digest.
    """
    with tempfile.TemporaryDirectory() as folder:
        metadata = f"{folder}/metadata.json"
        # The builder of the engine itself cannot build for two architectures.
        create = ["docker", "buildx", "create", "--name", BUILDER, "--driver", "docker-container"]
        known = subprocess.run([*create[:2], "inspect", BUILDER], cwd=ROOT, capture_output=True, check=False)
        for command in ([] if known.returncode == 0 else [create]) + [push_command(target, revision(), metadata)]:
            status = subprocess.run(command, cwd=ROOT, stdout=2, check=False).returncode
            if status:
                raise ReleaseError(f"`{' '.join(command[:3])}` failed with status {status}; its output is above")
        with open(metadata) as file:
            digest = json.load(file).get("containerimage.digest", "")
    if not str(digest).startswith("sha256:"):
        raise ReleaseError(f"docker buildx named no digest for {target}: look at its output above")
    return str(digest)
