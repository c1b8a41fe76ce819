"""Each block of deploy/kubernetes/README.md, rendered by kubectl, does what the page says."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from imds_detour import __version__
from imds_detour.config import settings
from tests.support.judges import kubernetes
from tests.support.judges.kubernetes import (
    DEPLOY,
    Manifest,
    Policy,
    complaints,
    find_manifest,
    pod_of,
    render,
    render_overlay,
    settings_of,
)

with open(f"{DEPLOY}/README.md") as page:
    BLOCKS: dict[str, Manifest] = {
        title: yaml.safe_load(block) for title, block in re.findall(r"```yaml\n# (.*)\n([^`]*)```", page.read())
    }
"""The page's blocks, by the comment in their first line."""
TOKENS = "mock, tokens required, and Kubernetes 1.29"


def spec_of(rendered: list[Manifest], name: str = "app") -> Manifest:
    """Return the spec of a Deployment's pod."""
    spec: Manifest = pod_of(find_manifest(rendered, "Deployment", name))["spec"]
    return spec


def mock_of(rendered: list[Manifest]) -> Manifest:
    """Return the mock's container."""
    container: Manifest = spec_of(rendered, "mock-metadata")["containers"][0]
    return container


def image(rendered: list[Manifest]) -> object:
    """Return what the block "image" sets."""
    spec = spec_of(rendered)
    (container,) = spec["initContainers"]
    return container["image"], container["imagePullPolicy"], spec["imagePullSecrets"]


def variables(rendered: list[Manifest]) -> dict[str, str]:
    """Return the variables of the container, which the settings' parser accepts."""
    values = settings_of(spec_of(rendered)["initContainers"][0], rendered)
    settings.parse(values)
    return values


def tokens(rendered: list[Manifest]) -> object:
    """Return what the block about tokens changes in the mock."""
    container = mock_of(rendered)
    return (
        container["readinessProbe"].get("tcpSocket"),
        "httpGet" in container["readinessProbe"],
        "lifecycle" in container,
    )


CASES: dict[str, tuple[Callable[[list[Manifest]], object], object]] = {
    "components": (lambda rendered: spec_of(rendered)["initContainers"][0]["name"], "imds-detour"),
    "image": (image, ("registry.example/imds-detour-ctl:0.1.0", "Always", [{"name": "registry-credentials"}])),
    "settings": (
        variables,
        {
            "MOCK_HOSTNAME": "mock-metadata.mocks.svc.cluster.local.",
            "MOCK_PORT": "1338",
            "MOCK_LOG": "json",
            "MOCK_ENDPOINTS": "aws,ecs=ecs-mock:8080",
        },
    ),
    "resources": (
        lambda rendered: spec_of(rendered)["initContainers"][0]["resources"],
        {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"cpu": "50m", "memory": "64Mi"}},
    ),
    "mock": (lambda rendered: settings_of(mock_of(rendered), rendered), {"AEMM_MOCK_DELAY_SEC": "5"}),
    TOKENS: (tokens, ({"port": "imds"}, False, False)),
}


def overlay(folder: Path, title: str) -> list[Manifest]:
    """Return what kubectl renders from a block beside the app, the mock and the sidecar."""
    block = {name: value for name, value in BLOCKS[title].items() if name not in ("resources", "components")}
    return render_overlay(folder, ["example/app", "mock"], components=["sidecar"], **block)


def test_every_block_is_tested() -> None:
    """Each block of the page is in the lists of these tests."""
    assert BLOCKS.keys() == {*CASES, "policy"}


@pytest.mark.parametrize("title", CASES)
def test_block_has_its_effect_on_the_pods(title: str, tmp_path: Path) -> None:
    """A block of the page sets what it says, and valid manifests result. Control: without it, the values differ."""
    see, expected = CASES[title]
    rendered = overlay(tmp_path, title)
    assert see(rendered) == expected
    oldest = kubernetes.FIRST_WITH_SIDECARS if title == TOKENS else (1, 30)
    assert {complaints(item, version) for item in rendered for version in (oldest, kubernetes.VERSIONS[-1])} == {""}
    if title not in ("components", "image"):
        assert see(render("example/sidecar")) != expected


def test_mock_without_a_block_gets_no_init_container(tmp_path: Path) -> None:
    """The patches for the apps leave the mock out, by its label."""
    for title in ("image", "resources"):
        assert "initContainers" not in spec_of(overlay(tmp_path / title, title), "mock-metadata")


def test_policy_block_changes_the_policys_settings(tmp_path: Path) -> None:
    """The block for the policy reaches the container that it adds, and keeps the ConfigMap's name."""
    block = BLOCKS["policy"]
    rendered = render_overlay(tmp_path, ["admission"], configMapGenerator=block["configMapGenerator"])
    params = find_manifest(rendered, "ConfigMap", "imds-detour")
    assert params["metadata"]["namespace"] == "imds-detour"
    policy = Policy(find_manifest(rendered, "MutatingAdmissionPolicy", "imds-detour"), params)
    pod = pod_of(find_manifest(render("example/app"), "Deployment", "app"))
    added = policy.mutate(pod, {"metadata": {"labels": {"imds-detour": "init"}}})["spec"]["initContainers"][0]
    values = dict(item.split("=", 1) for item in block["configMapGenerator"][0]["literals"])
    assert (added["image"], added["imagePullPolicy"]) == (values["image"], "Always")
    assert added["resources"] == {
        kind: {name: values[f"{kind}.{name}"] for name in ("cpu", "memory")} for kind in ("requests", "limits")
    }
    environ = settings_of(added, [])
    assert (environ["MOCK_ENDPOINTS"], environ["MOCK_PORT"]) == (values["MOCK_ENDPOINTS"], "1338")
    settings.parse(environ)


def test_folders_apply_by_url_and_tag(tmp_path: Path) -> None:
    """Kubectl renders a folder and a component from a git repository's tag as from this one."""
    repository = tmp_path / "repository"
    shutil.copytree(DEPLOY, repository / "deploy" / "kubernetes")
    git = ["git", "-C", str(repository), "-c", "user.name=test", "-c", "user.email=test@example.invalid"]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "x"], ["tag", f"v{__version__}"]):
        subprocess.run([*git, *command], check=True)

    def at(folder: str) -> str:
        return f"file://{repository}//deploy/kubernetes/{folder}?ref=v{__version__}"

    assert render(at("example/sidecar")) == render("example/sidecar")
    work = tmp_path / "work"
    work.mkdir()
    whole = {"resources": [at("example/app"), at("mock")], "components": [at("sidecar")]}
    (work / "kustomization.yaml").write_text(json.dumps(whole))
    assert spec_of(render(str(work))) == spec_of(render("example/sidecar"))


def test_pod_monitor_reads_the_sidecars_port() -> None:
    """The PodMonitor names the port and the path of the sidecar's metrics."""
    (monitor,) = render("monitoring")
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    (port,) = spec_of(render("example/sidecar"))["initContainers"][0]["ports"]
    assert (endpoint["port"], endpoint["path"]) == (port["name"], "/metrics")


def test_network_policies_allow_dns_mock_and_metrics() -> None:
    """The policies allow DNS, the mock's own port at its pods, and Prometheus at the sidecar's port."""
    policies: dict[str, Any] = {item["metadata"]["name"]: item["spec"] for item in render("network-policy")}
    mock = pod_of(find_manifest(render("mock"), "Deployment", "mock-metadata"))
    labels, port = mock["metadata"]["labels"], mock["spec"]["containers"][0]["ports"][0]["containerPort"]
    dns, to_mock = policies["imds-detour-to-dns-and-mock"]["egress"]
    assert {(item["protocol"], item["port"]) for item in dns["ports"]} == {("UDP", 53), ("TCP", 53)}
    assert to_mock["to"][0]["podSelector"]["matchLabels"].items() <= labels.items()
    at_mock = policies["imds-detour-to-the-mock"]
    assert at_mock["podSelector"]["matchLabels"].items() <= labels.items()
    assert [item["port"] for item in (*to_mock["ports"], *at_mock["ingress"][0]["ports"])] == [port, port]
    (metrics,) = spec_of(render("example/sidecar"))["initContainers"][0]["ports"]
    assert policies["imds-detour-metrics"]["ingress"][0]["ports"][0]["port"] == metrics["containerPort"]


def test_page_names_the_version() -> None:
    """The page's commands and blocks name the image of this version."""
    with open(os.path.join(DEPLOY, "README.md")) as file:
        text = file.read()
    assert set(re.findall(r"imds-detour-(?:ctl|mock):(\d[\d.]*\d)|\?ref=v(\d[\d.]*\d)", text)) == {
        (__version__, ""),
        ("", __version__),
    }
