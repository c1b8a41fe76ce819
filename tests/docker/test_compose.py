"""compose.yaml and compose.moto.yaml with both versions of Compose."""

import json
import time
from typing import Any

from tests.docker.conftest import Composer
from tests.docker.engine import Container, Project
from tests.docker.images import Images, fetch
from tests.support.documents import blocks, general
from tests.support.hosts.network import ID_URL, INSTANCE, METADATA

CLOSED: dict[str, Any] = {"default": {"internal": True}}
GET = fetch("debug", ID_URL)
MOTO_INSTANCE = "i-fake"
AS_THE_APP = "1000"


def main(composer: Composer, images: Images) -> tuple[Project, Container, str]:
    """Start the project of compose.yaml with the development mock; return it, its app, and the app's last line."""
    changes = {"services": {"debug": {"image": images.target("debug")}}, "networks": CLOSED}
    project = composer.project("compose.yaml", changes, MOCK_IMAGE=images.target("mock"))
    project.run("up", "--detach")
    debug = project.container("debug")
    return project, debug, debug.says("; exec sleep")


def test_readme_commands_work_and_down_is_quick(composer: Composer, images: Images) -> None:
    """The README's `up`, `logs` and `exec curl` print what it shows; `down` ends within the short grace period."""
    project, debug, line = main(composer, images)
    assert f"{METADATA}:80 -> mock_metadata (" in line
    assert f":1338), nftables, verified IMDSv2 {INSTANCE}" in line
    (shown,) = blocks("README.md", "text")
    assert general(line) == general(shown.strip().replace("my-app", "sleep"))
    assert "verified" in project.run("logs", "debug").stdout
    assert (project.run("exec", "-T", "debug", *GET).stdout, debug.processes()) == (INSTANCE, ["sleep 3600"])
    assert not int(debug.reads("/proc/1/status").split("CapEff:")[1].split()[0], 16) >> 12 & 1
    start = time.monotonic()
    project.run("down")
    assert time.monotonic() - start < 9, "the ten seconds of Docker's own grace"
    assert project.containers("debug") == []


def with_moto(composer: Composer, images: Images, **app: Any) -> Project:  # noqa: ANN401  (a service's own keys)
    """Create the project of compose.moto.yaml, with moto and an app with boto3."""
    changes = {"services": {"app": {"image": images.app("moto"), **app}}}
    return composer.project("docker/compose.moto.yaml", changes, MOTO_IMAGE=images.moto())


def test_moto_gives_metadata_and_aws_apis(composer: Composer, images: Images) -> None:
    """boto3 in an app without root gets credentials from 169.254.169.254 and buckets from moto."""
    project = with_moto(composer, images)
    project.run("up", "--detach")
    app = project.container("app")
    assert "verified" in app.says("; exec sleep")
    assert app.reads("/proc/1/status").split("Uid:")[1].split()[:4] == [AS_THE_APP] * 4
    script = (
        "import boto3, json; s = boto3.Session(); s3 = boto3.client('s3'); s3.create_bucket(Bucket='bucket');"
        "print(json.dumps([s.get_credentials().method, [b['Name'] for b in s3.list_buckets()['Buckets']]]))"
    )
    method, buckets = json.loads(app.run("python3", "-c", script).stdout)
    assert (method, buckets, app.run(*fetch("moto", ID_URL)).stdout) == ("iam-role", ["bucket"], MOTO_INSTANCE)


def test_two_apps_wait_for_a_mock_that_starts_late(composer: Composer, images: Images) -> None:
    """Two apps wait ten seconds until the mock's name resolves, then start and read the same mock."""
    project = with_moto(composer, images)
    project.run("up", "--detach", "--no-deps", "--scale", "app=2", "app")
    apps = project.containers("app")
    assert len(apps) == 2
    time.sleep(10)  # what is tested
    for app in apps:
        assert "; exec" not in app.logs()
        assert app.says("waiting")
    project.run("up", "--detach", "--scale", "app=2")
    for app in apps:
        app.says("; exec sleep")
        assert app.run(*fetch("moto", ID_URL)).stdout == MOTO_INSTANCE
    assert project.engine.says("network", "inspect", "--format", "{{.Internal}}", f"{project.name}_default") == "true"


def test_scaling_adds_apps(composer: Composer, images: Images) -> None:
    """`up --scale` adds apps and does not restart the running one."""
    project, first, _ = main(composer, images)
    project.run("up", "--detach", "--scale", "debug=3")
    apps: list[Container] = project.containers("debug")
    assert len(apps) == 3
    for app in apps:
        app.says("; exec sleep")
        assert app.run(*GET).stdout == INSTANCE
    assert first.logs().count("; exec sleep") == 1
