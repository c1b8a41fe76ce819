"""deploy/kubernetes as kubectl renders it: valid for each supported version, least privilege, one image setting."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING

import pytest
import yaml

from imds_detour.config.variables import BY_NAME
from tests.support.judges import kubernetes
from tests.support.judges.kubernetes import DEPLOY, VERSIONS, complaints, name_of, one, pod_of, render

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.judges.kubernetes import Manifest

STABLE_POLICY, BETA_POLICY = (1, 36), (1, 34)
"""KEP-3962: admissionregistration.k8s.io/v1 and v1beta1 have MutatingAdmissionPolicy from these versions on."""
EVERYWHERE = ("mock", "example/app", "example/namespace", "example/sidecar", "example/init", "admission/namespaced")
SINCE = {
    **dict.fromkeys(EVERYWHERE, kubernetes.FIRST_WITH_SIDECARS),
    "admission": STABLE_POLICY,
    "admission-v1beta1": BETA_POLICY,
}
COMPONENTS = ("sidecar", "init")
BASELINE_CAPABILITIES = {
    *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP"),
    *("SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
}
"""What the Pod Security level "baseline" lets a container add (Kubernetes, "Pod Security Standards")."""


def beyond(pod: Manifest) -> dict[str, set[str]]:
    """Return what keeps a pod from the Pod Security levels, by level; the controls that can concern ours."""
    found: dict[str, set[str]] = {"baseline": set(), "restricted": set()}
    spec, shared = pod["spec"], pod["spec"].get("securityContext", {})
    found["baseline"] |= {field for field in ("hostNetwork", "hostPID", "hostIPC") if spec.get(field)}
    for container in (*spec.get("initContainers", ()), *spec["containers"]):
        name, own = container["name"], {**shared, **container.get("securityContext", {})}
        capabilities = own.get("capabilities", {})
        added = set(capabilities.get("add", ()))
        if own.get("privileged"):
            found["baseline"].add(f"{name}: privileged")
        found["baseline"] |= {f"{name}: adds {capability}" for capability in added - BASELINE_CAPABILITIES}
        found["restricted"] |= {f"{name}: adds {capability}" for capability in added - {"NET_BIND_SERVICE"}}
        if "ALL" not in capabilities.get("drop", ()):
            found["restricted"].add(f"{name}: does not drop ALL")
        if own.get("allowPrivilegeEscalation", True):
            found["restricted"].add(f"{name}: allowPrivilegeEscalation")
        if not own.get("runAsNonRoot") or own.get("runAsUser") == 0:
            found["restricted"].add(f"{name}: runs as root")
        if own.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
            found["restricted"].add(f"{name}: no seccompProfile")
    return found


def ours(folder: str) -> Manifest:
    """Return our container in the example's app."""
    container: Manifest = pod_of(one(render(f"example/{folder}"), "Deployment", "app"))["spec"]["initContainers"][0]
    return container


def test_every_kustomization_is_tested() -> None:
    """A folder that is added is rendered and validated, too."""
    folders = {os.path.relpath(at, DEPLOY) for at, _, files in os.walk(DEPLOY) if "kustomization.yaml" in files}
    assert folders == {*SINCE, *COMPONENTS}


@pytest.mark.parametrize("version", VERSIONS, ids=name_of)
@pytest.mark.parametrize("folder", SINCE)
def test_each_is_valid_for_every_version_that_has_its_api(folder: str, version: tuple[int, ...]) -> None:
    """By the official schema, unknown fields included; before its API there is none for it."""
    found = {f"{each['kind']}: {what}" for each in render(folder) if (what := complaints(each, version))}
    if version >= SINCE[folder]:
        assert found == set()
    else:
        assert all("find schema for kind MutatingAdmissionPolicy" in each for each in found)
        assert found


def test_what_is_wrong_is_found(tmp_path: Path) -> None:
    """The control: a misspelt field, a type, and a patch without its file."""
    deployment = one(render("example/sidecar"), "Deployment", "app")
    text = json.dumps(deployment)
    for right, wrong in (("startupProbe", "startUpProbe"), ('"periodSeconds": 1', '"periodSeconds": "1s"')):
        assert right in text
        assert complaints(json.loads(text.replace(right, wrong)), VERSIONS[-1])
    assert complaints(deployment, VERSIONS[-1]) == ""
    (tmp_path / "kustomization.yaml").write_text("patches: [{path: nowhere.yaml}]")
    with pytest.raises(Exception, match="non-zero exit status"):
        render(str(tmp_path))


@pytest.mark.parametrize("folder", COMPONENTS)
def test_the_app_is_as_it_was_and_ours_comes_first(folder: str, tmp_path: Path) -> None:
    """A component adds one init container before those that are there, to every kind of workload, and to no mock."""
    app = one(render("example/app"), "Deployment", "app")
    app["spec"]["template"]["spec"]["initContainers"] = [{"name": "migrate", "image": "migrate:1"}]
    job = {**app, "apiVersion": "batch/v1", "kind": "Job", "spec": {"template": app["spec"]["template"]}}
    (tmp_path / "work.yaml").write_text(yaml.safe_dump_all([app, {**app, "kind": "StatefulSet"}, job]))
    # kustomize takes no absolute paths as components
    paths = {"resources": ["work.yaml", os.path.relpath(f"{DEPLOY}/mock", tmp_path)]}
    components = {"components": [os.path.relpath(f"{DEPLOY}/{folder}", tmp_path)]}
    (tmp_path / "kustomization.yaml").write_text(json.dumps({**paths, **components}))
    rendered = render(str(tmp_path))
    for kind in ("Deployment", "StatefulSet", "Job"):
        pod = one(rendered, kind, "app")["spec"]["template"]
        first, second = pod["spec"]["initContainers"]
        assert (first["name"], second) == ("imds-detour", {"name": "migrate", "image": "migrate:1"})
        pod["spec"]["initContainers"] = [second]
        assert pod == app["spec"]["template"]
    mock = one(rendered, "Deployment", "mock-metadata")
    assert mock == one(render("mock"), "Deployment", "mock-metadata")


def test_sidecar_and_init_container_differ_in_role_alone() -> None:
    """The sidecar stays, and the app waits for its startup probe; all else is the same."""
    sidecar, init = ours("sidecar"), ours("init")
    assert sidecar.pop("restartPolicy") == "Always"
    assert sidecar.pop("startupProbe")["exec"]["command"] == ["imds-detourctl", "check"]
    assert sidecar.pop("command") == ["imds-detourctl", "sidecar", "--keep"]
    assert init.pop("command") == ["imds-detourctl", "init"]
    assert sidecar == init


@pytest.mark.parametrize("folder", COMPONENTS)
def test_least_privilege(folder: str) -> None:
    """Beyond "restricted" are one capability and the user it takes; beyond "baseline" the capability alone."""
    pod = pod_of(one(render(f"example/{folder}"), "Deployment", "app"))
    assert beyond(pod) == {
        "baseline": {"imds-detour: adds NET_ADMIN"},
        "restricted": {"imds-detour: adds NET_ADMIN", "imds-detour: runs as root"},
    }
    container = ours(folder)
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert set(container["resources"]["requests"]) == {"cpu", "memory"}
    assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize(("folder", "name"), [("example/app", "app"), ("mock", "mock-metadata")])
def test_app_and_mock_keep_to_the_strictest_level(folder: str, name: str) -> None:
    """Nothing of ours asks anything of them."""
    assert beyond(pod_of(one(render(folder), "Deployment", name))) == {"baseline": set(), "restricted": set()}


def test_the_namespace_of_the_example_admits_its_pods() -> None:
    """NET_ADMIN is beyond "baseline", so it is "privileged"; the mock's own namespace is "restricted"."""
    for folder, name, level in (
        ("example/sidecar", "imds-detour-example", "privileged"),
        ("admission", "imds-detour", "restricted"),
    ):
        labels = one(render(folder), "Namespace", name)["metadata"]["labels"]
        assert labels["pod-security.kubernetes.io/enforce"] == level


@pytest.mark.parametrize("folder", COMPONENTS)
def test_settings_are_ours_and_lead_to_the_mock(folder: str) -> None:
    """Every variable is a setting; name and port are those of the Service, which leads to the mock's port."""
    settings = {each["name"]: each["value"] for each in ours(folder)["env"]}
    assert set(settings) <= set(BY_NAME)
    service = one(render("mock"), "Service", settings["MOCK_HOSTNAME"])
    (port,) = service["spec"]["ports"]
    pod = pod_of(one(render("mock"), "Deployment", "mock-metadata"))
    assert str(port["port"]) == settings["MOCK_PORT"]
    assert {"name": port["targetPort"], "containerPort": 1338} in pod["spec"]["containers"][0]["ports"]
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()


@pytest.mark.parametrize("folder", COMPONENTS)
def test_the_image_is_overridden_in_one_place(folder: str, tmp_path: Path) -> None:
    """A kustomization on top says ``images:`` once, and ours alone changes."""
    base = os.path.relpath(f"{DEPLOY}/example/{folder}", tmp_path)
    images = [{"name": "imds-detour-ctl", "newName": "registry.example/tools/imds-detour", "newTag": "1.2.3"}]
    (tmp_path / "kustomization.yaml").write_text(json.dumps({"resources": [base], "images": images}))
    pod = pod_of(one(render(str(tmp_path)), "Deployment", "app"))["spec"]
    assert pod["initContainers"][0]["image"] == "registry.example/tools/imds-detour:1.2.3"
    assert pod["containers"][0]["image"].startswith("public.ecr.aws/docker/library/busybox:")


def path_of(image: str) -> str:
    """Return PATH as docker/Dockerfile sets it in the image that `make images` builds by this name, or nothing."""
    target = image.partition(":")[0].removeprefix("imds-detour").removeprefix("-") or "bundle"
    with open(f"{kubernetes.ROOT}/docker/Dockerfile") as file:
        stages = re.split(r"^FROM ", file.read(), flags=re.MULTILINE)
    (stage,) = (each for each in stages if each.splitlines()[0].endswith(f" AS {target}"))
    return "".join(re.findall(r"^ENV PATH=(.*)$", stage, re.MULTILINE))


@pytest.mark.parametrize("way", [*COMPONENTS, "admission"])
def test_the_image_is_the_one_that_has_imds_detourctl_on_its_path(way: str) -> None:
    """The manifests call it by name; the image to copy from, which has it in the same folder, would not do."""
    if way == "admission":
        image = one(render("admission"), "ConfigMap", "imds-detour")["data"]["image"]
    else:
        image = ours(way)["image"]
        assert ours(way)["command"][0] == "imds-detourctl"
    assert path_of(image) == "/opt/imds-detour/bin"
    assert path_of("imds-detour") == ""
