"""deploy/kubernetes/chart as helm renders it: the same manifests as the kustomization, and each value's effect."""

import functools
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from imds_detour import __version__
from tests.support.judges import kubernetes
from tests.support.judges.kubernetes import DEPLOY, Manifest, complaints, find_manifest, pod_of, render, unpacked

CHART = f"{DEPLOY}/chart"
STABLE, BETA = "1.36.0", "1.34.0"
pytestmark = pytest.mark.skipif(not shutil.which(unpacked("helm")), reason="there is no helm: scripts/setup test")


def helm(*arguments: str, values: str = "{}") -> subprocess.CompletedProcess[str]:
    """Run helm with values, without a cluster."""
    command = [unpacked("helm"), *arguments, "--values", "-"]
    return subprocess.run(command, input=values, capture_output=True, text=True, timeout=60, check=False)


@functools.cache
def _rendered(version: str, namespace: str, values: str) -> str:
    done = helm(
        *("template", "release", CHART, "--namespace", namespace, "--kube-version", version),
        *("--api-versions", "monitoring.coreos.com/v1"),
        values=values,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def chart(version: str = STABLE, namespace: str = "imds-detour", **values: Any) -> list[Manifest]:  # noqa: ANN401
    """Return the manifests that ``helm install`` sends to a cluster of a version."""
    return [item for item in yaml.safe_load_all(_rendered(version, namespace, json.dumps(values))) if item]


def settings(**values: Any) -> dict[str, str]:  # noqa: ANN401
    """Return the settings that the policy reads."""
    data: dict[str, str] = find_manifest(chart(**values), "ConfigMap", "imds-detour")["data"]
    return data


def without_namespace(manifests: list[Manifest]) -> dict[tuple[str, str], Manifest]:
    """Return manifests by kind and name, without their namespace, which helm gives only to those that name it."""
    for item in manifests:
        item["metadata"].pop("namespace", None)
    return {(item["kind"], item["metadata"]["name"]): item for item in manifests if item["kind"] != "Namespace"}


def test_lint_finds_nothing() -> None:
    """``helm lint --strict`` accepts the chart."""
    done = helm("lint", "--strict", CHART)
    assert done.returncode == 0, done.stdout


def test_package_renders_as_the_folder(tmp_path: Path) -> None:
    """``helm package`` takes the linked manifests in, so that a package renders what the folder does."""
    subprocess.run([unpacked("helm"), "package", CHART, "--destination", tmp_path], check=True, capture_output=True)
    package = f"{tmp_path}/imds-detour-{__version__}.tgz"
    packaged, folder = (helm("template", "release", at, "--kube-version", STABLE) for at in (package, CHART))
    assert packaged.returncode == 0, packaged.stderr
    assert packaged.stdout == folder.stdout


@pytest.mark.parametrize(("folder", "version"), [("admission", STABLE), ("admission-v1beta1", BETA)])
def test_chart_and_kustomization_are_the_same(folder: str, version: str) -> None:
    """With its own values, the chart renders what the kustomization for the same version does."""
    assert without_namespace(chart(version)) == without_namespace(render(folder))


def test_chart_is_valid() -> None:
    """The official schemas accept the manifests with every part switched on, but for the PodMonitor, which has none."""
    for version in (version for version in kubernetes.VERSIONS if version >= (1, 34)):
        manifests = chart(f"{kubernetes.name_of(version)}.0", networkPolicies=True, podMonitor=True)
        kinds = {item["kind"] for item in manifests}
        assert {"PodMonitor", "NetworkPolicy"} <= kinds
        assert {complaints(item, version) for item in manifests if item["kind"] != "PodMonitor"} == {""}


def test_release_can_be_in_any_namespace() -> None:
    """Bindings and the mock's name follow the release's namespace."""
    rendered = chart(namespace="tools")
    bindings = [item["spec"]["paramRef"] for item in rendered if item["kind"] == "MutatingAdmissionPolicyBinding"]
    assert {(item["name"], item["namespace"]) for item in bindings} == {("imds-detour", "tools")}
    config = find_manifest(rendered, "ConfigMap", "imds-detour")
    assert config["metadata"]["namespace"] == "tools"
    assert config["data"]["MOCK_HOSTNAME"] == "mock-metadata.tools.svc.cluster.local."


def test_values_reach_the_policys_settings() -> None:
    """Image, pull policy, resources and settings of the values are in the ConfigMap."""
    amounts = {"requests": {"cpu": "50m", "memory": "48Mi"}, "limits": {"cpu": "50m", "memory": "48Mi"}}
    wanted = {"MOCK_HOSTNAME": "mock.example.", "MOCK_PORT": 80, "MOCK_ENDPOINTS": "aws,ecs=creds:80"}
    data = settings(image="r.example/ctl:2", imagePullPolicy="Always", resources=amounts, settings=wanted)
    assert data == {
        "image": "r.example/ctl:2",
        "imagePullPolicy": "Always",
        "MOCK_TIMEOUT": "0",
        **{f"{kind}.{name}": value for kind, values in amounts.items() for name, value in values.items()},
        **{name: str(value) for name, value in wanted.items()},
    }


def test_values_reach_the_mock() -> None:
    """The mock has the image and the variables of the values, or is left out."""
    rendered = chart(mock={"image": "aemm:2", "values": {"AEMM_MOCK_DELAY_SEC": 5}})
    container = pod_of(find_manifest(rendered, "Deployment", "mock-metadata"))["spec"]["containers"][0]
    assert container["image"] == "aemm:2"
    assert kubernetes.settings_of(container, rendered) == {"AEMM_MOCK_DELAY_SEC": "5"}
    kinds = {item["kind"] for item in chart(mock={"enabled": False})}
    assert not kinds & {"Deployment", "Service"}


@pytest.mark.parametrize(
    "values",
    [
        {"imagePulPolicy": "Always"},
        {"imagePullPolicy": "always"},
        {"settings": {"MOK_HOSTNAME": "x"}},
        {"resources": {"limits": {"memory": None}}},
    ],
)
def test_wrong_values_are_refused(values: Manifest) -> None:
    """A misspelt name, a value that Kubernetes does not have, and a missing limit end helm with an error."""
    done = helm("template", "release", CHART, "--kube-version", STABLE, values=json.dumps(values))
    assert done.returncode != 0
    assert "values don't meet the specifications of the schema" in done.stderr


def test_older_kubernetes_is_refused() -> None:
    """Before 1.34 there is no MutatingAdmissionPolicy, and helm says so."""
    done = helm("template", "release", CHART, "--kube-version", "1.33.0")
    assert "which is incompatible with Kubernetes v1.33.0" in done.stderr


def test_chart_has_the_packages_version() -> None:
    """Chart, app and image have the version of this package."""
    with open(f"{CHART}/Chart.yaml") as file:
        versions = yaml.safe_load(file)
    assert (versions["version"], versions["appVersion"]) == (__version__, __version__)
    assert settings()["image"] == f"imds-detour-ctl:{__version__}"
