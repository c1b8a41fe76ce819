"""docs/from-the-script.md: a Compose file of the script, unchanged, with the page's three lines of Dockerfile."""

import json
from pathlib import Path

from tests.docker.engine import Engine, Project
from tests.docker.images import PREFIX, Images, fetch
from tests.support.documents import blocks, general
from tests.support.hosts.network import ID_URL, INSTANCE

MOCK_AT_80 = f'FROM {PREFIX}/mock\nCMD ["--listen", "0.0.0.0:80"]\n'
"""In place of the user's own Dockerfile of the mock, which the page does not change."""
PRIVATE = {
    "services": {"mock_metadata": {"image": f"{PREFIX}/script-mock"}, "debug": {"image": f"{PREFIX}/script-debug"}},
    "networks": {"default": {"internal": True}},
}
"""Names of these tests for the images that Compose builds, and a closed network."""


def block(language: str) -> str:
    """Return the only code block in a language of the page."""
    (code,) = blocks("docs/from-the-script.md", language)
    return code


def test_compose_file_of_the_script_works_unchanged(
    compose: tuple[str, ...], engine: Engine, images: Images, tmp_path: Path
) -> None:
    """With the page's Dockerfile, the unchanged Compose file starts a verified app, whose line is the page's."""
    images.target("mock")
    dockerfile = block("dockerfile").replace("buildpack-deps:bookworm-curl", f"{PREFIX}/debian")
    files = {
        "docker-compose.yaml": block("yaml"),
        "private.yaml": json.dumps({"version": "3", **PRIVATE}),
        "Dockerfile.debug": dockerfile.replace("--from=imds-detour ", f"--from={images.target('bundle')} "),
        "Dockerfile.metadata-mock": MOCK_AT_80,
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    project = Project(
        compose, engine, tuple(f"{tmp_path}/{name}" for name in list(files)[:2]), {"DOCKER_BUILDKIT": "0"}
    )
    try:
        project.run("build")
        project.run("up", "--detach")
        debug = project.container("debug")
        assert general(debug.says("; exec sleep")) == general(block("text").strip())
        assert debug.run(*fetch(f"{PREFIX}/debian", ID_URL)).stdout == INSTANCE
        assert not int(debug.reads("/proc/1/status").split("CapEff:")[1].split()[0], 16) >> 12 & 1
        # Control: the container itself has the capability that the app has not.
        assert int(debug.run("cat", "/proc/self/status").stdout.split("CapEff:")[1].split()[0], 16) >> 12 & 1
    finally:
        project.close()
