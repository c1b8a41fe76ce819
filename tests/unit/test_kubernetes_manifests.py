"""deploy/kubernetes as kubectl renders it: valid for each supported version, least privilege, one image setting."""

import json
import os
import re
from pathlib import Path

import pytest
import yaml

from imds_detour.config.variables import BY_NAME
from tests.support.judges import kubernetes
from tests.support.judges.kubernetes import DEPLOY, EACH_VERSION, Manifest, complaints, find_manifest, pod_of, render

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
"""The capabilities that the Pod Security level "baseline" allows (Kubernetes, "Pod Security Standards")."""


def violations(pod: Manifest) -> dict[str, set[str]]:
    """Return the violations of each Pod Security level, for the controls that can concern imds-detour."""
    levels: dict[str, set[str]] = {"baseline": set(), "restricted": set()}
    spec, shared = pod["spec"], pod["spec"].get("securityContext", {})
    levels["baseline"] |= {field for field in ("hostNetwork", "hostPID", "hostIPC") if spec.get(field)}
    for container in (*spec.get("initContainers", ()), *spec["containers"]):
        name, own = container["name"], {**shared, **container.get("securityContext", {})}
        capabilities = own.get("capabilities", {})
        added = set(capabilities.get("add", ()))
        if own.get("privileged"):
            levels["baseline"].add(f"{name}: privileged")
        levels["baseline"] |= {f"{name}: adds {capability}" for capability in added - BASELINE_CAPABILITIES}
        levels["restricted"] |= {f"{name}: adds {capability}" for capability in added - {"NET_BIND_SERVICE"}}
        if "ALL" not in capabilities.get("drop", ()):
            levels["restricted"].add(f"{name}: does not drop ALL")
        if own.get("allowPrivilegeEscalation", True):
            levels["restricted"].add(f"{name}: allowPrivilegeEscalation")
        if not own.get("runAsNonRoot") or own.get("runAsUser") == 0:
            levels["restricted"].add(f"{name}: runs as root")
        if own.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
            levels["restricted"].add(f"{name}: no seccompProfile")
    return levels


def detour_container(folder: str) -> Manifest:
    """Return the imds-detour container of the example's app."""
    pod = pod_of(find_manifest(render(f"example/{folder}"), "Deployment", "app"))
    container: Manifest = pod["spec"]["initContainers"][0]
    return container


def test_every_kustomization_is_tested() -> None:
    """Each folder with a kustomization.yaml is in the lists of these tests."""
    folders = {os.path.relpath(at, DEPLOY) for at, _, files in os.walk(DEPLOY) if "kustomization.yaml" in files}
    assert folders == {*SINCE, *COMPONENTS}


@EACH_VERSION
@pytest.mark.parametrize("folder", SINCE)
def test_manifests_are_valid_for_each_kubernetes_version(folder: str, version: tuple[int, ...]) -> None:
    """The official schema of each version accepts the manifests, unless the version lacks their API."""
    objections = {f"{item['kind']}: {objection}" for item in render(folder) if (objection := complaints(item, version))}
    if version >= SINCE[folder]:
        assert objections == set()
    else:
        assert all("find schema for kind MutatingAdmissionPolicy" in objection for objection in objections)
        assert objections


def test_invalid_manifests_are_refused(tmp_path: Path) -> None:
    """Negative control: a misspelt field, a wrong type and a missing patch file are refused."""
    deployment = find_manifest(render("example/sidecar"), "Deployment", "app")
    text = json.dumps(deployment)
    for right, wrong in (("startupProbe", "startUpProbe"), ('"periodSeconds": 1', '"periodSeconds": "1s"')):
        assert right in text
        assert complaints(json.loads(text.replace(right, wrong)), kubernetes.VERSIONS[-1])
    assert complaints(deployment, kubernetes.VERSIONS[-1]) == ""
    (tmp_path / "kustomization.yaml").write_text("patches: [{path: nowhere.yaml}]")
    with pytest.raises(Exception, match="non-zero exit status"):
        render(str(tmp_path))


@pytest.mark.parametrize("folder", COMPONENTS)
def test_component_adds_only_the_first_init_container(folder: str, tmp_path: Path) -> None:
    """A component adds the first init container to each kind of workload, and changes no mock."""
    app = find_manifest(render("example/app"), "Deployment", "app")
    app["spec"]["template"]["spec"]["initContainers"] = [{"name": "migrate", "image": "migrate:1"}]
    job = {**app, "apiVersion": "batch/v1", "kind": "Job", "spec": {"template": app["spec"]["template"]}}
    (tmp_path / "work.yaml").write_text(yaml.safe_dump_all([app, {**app, "kind": "StatefulSet"}, job]))
    # kustomize takes no absolute paths as components
    mock, component = (os.path.relpath(f"{DEPLOY}/{name}", tmp_path) for name in ("mock", folder))
    kustomization = {"resources": ["work.yaml", mock], "components": [component]}
    (tmp_path / "kustomization.yaml").write_text(json.dumps(kustomization))
    rendered = render(str(tmp_path))
    for kind in ("Deployment", "StatefulSet", "Job"):
        pod = find_manifest(rendered, kind, "app")["spec"]["template"]
        first, second = pod["spec"]["initContainers"]
        assert (first["name"], second) == ("imds-detour", {"name": "migrate", "image": "migrate:1"})
        pod["spec"]["initContainers"] = [second]
        assert pod == app["spec"]["template"]
    unchanged = find_manifest(render("mock"), "Deployment", "mock-metadata")
    assert find_manifest(rendered, "Deployment", "mock-metadata") == unchanged


def test_sidecar_and_init_container_differ_only_in_role() -> None:
    """The sidecar differs from the init container in restart policy, startup probe and command."""
    sidecar, init = detour_container("sidecar"), detour_container("init")
    assert sidecar.pop("restartPolicy") == "Always"
    assert sidecar.pop("startupProbe")["exec"]["command"] == ["imds-detourctl", "check"]
    assert sidecar.pop("command") == ["imds-detourctl", "sidecar", "--keep"]
    assert (init.pop("command"), sidecar) == (["imds-detourctl", "init"], init)


@pytest.mark.parametrize("folder", COMPONENTS)
def test_container_has_least_privilege(folder: str) -> None:
    """The container adds NET_ADMIN to "baseline", and NET_ADMIN and root to "restricted"."""
    pod = pod_of(find_manifest(render(f"example/{folder}"), "Deployment", "app"))
    assert violations(pod) == {
        "baseline": {"imds-detour: adds NET_ADMIN"},
        "restricted": {"imds-detour: adds NET_ADMIN", "imds-detour: runs as root"},
    }
    container = detour_container(folder)
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert set(container["resources"]["requests"]) == {"cpu", "memory"}
    assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize(("folder", "name"), [("example/app", "app"), ("mock", "mock-metadata")])
def test_app_and_mock_pass_the_restricted_level(folder: str, name: str) -> None:
    """The pods of the app and the mock without imds-detour pass the "restricted" level."""
    pod = pod_of(find_manifest(render(folder), "Deployment", name))
    assert violations(pod) == {"baseline": set(), "restricted": set()}


@pytest.mark.parametrize(
    ("folder", "name", "level"),
    [("example/sidecar", "imds-detour-example", "privileged"), ("admission", "imds-detour", "restricted")],
)
def test_namespace_admits_its_pods(folder: str, name: str, level: str) -> None:
    """The example's namespace is "privileged", since NET_ADMIN violates "baseline"; the mock's is "restricted"."""
    labels = find_manifest(render(folder), "Namespace", name)["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == level


@pytest.mark.parametrize("folder", COMPONENTS)
def test_settings_point_to_the_mocks_service(folder: str) -> None:
    """Each variable is a setting. Host and port are those of the Service, which selects the mock's port."""
    settings = {item["name"]: item["value"] for item in detour_container(folder)["env"]}
    assert set(settings) <= set(BY_NAME)
    service = find_manifest(render("mock"), "Service", settings["MOCK_HOSTNAME"])
    (port,) = service["spec"]["ports"]
    pod = pod_of(find_manifest(render("mock"), "Deployment", "mock-metadata"))
    assert str(port["port"]) == settings["MOCK_PORT"]
    assert {"name": port["targetPort"], "containerPort": 1338} in pod["spec"]["containers"][0]["ports"]
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()


@pytest.mark.parametrize("folder", COMPONENTS)
def test_images_setting_replaces_only_the_detour_image(folder: str, tmp_path: Path) -> None:
    """One entry under ``images:`` replaces imds-detour's image and no other."""
    base = os.path.relpath(f"{DEPLOY}/example/{folder}", tmp_path)
    images = [{"name": "imds-detour-ctl", "newName": "registry.example/tools/imds-detour", "newTag": "1.2.3"}]
    (tmp_path / "kustomization.yaml").write_text(json.dumps({"resources": [base], "images": images}))
    pod = pod_of(find_manifest(render(str(tmp_path)), "Deployment", "app"))["spec"]
    assert pod["initContainers"][0]["image"] == "registry.example/tools/imds-detour:1.2.3"
    assert pod["containers"][0]["image"].startswith("public.ecr.aws/docker/library/busybox:")


def path_of(image: str) -> str:
    """Return PATH in an image of docker/Dockerfile, or an empty string if the image sets none."""
    target = image.partition(":")[0].removeprefix("imds-detour").removeprefix("-") or "bundle"
    with open(f"{kubernetes.ROOT}/docker/Dockerfile") as file:
        stages = re.split(r"^FROM ", file.read(), flags=re.MULTILINE)
    (stage,) = (text for text in stages if text.splitlines()[0].endswith(f" AS {target}"))
    return "".join(re.findall(r"^ENV PATH=(.*)$", stage, re.MULTILINE))


@pytest.mark.parametrize("kind", [*COMPONENTS, "admission"])
def test_manifest_image_has_imds_detourctl_on_path(kind: str) -> None:
    """The manifests' image has imds-detourctl on PATH, unlike the image to copy from."""
    if kind == "admission":
        image = find_manifest(render("admission"), "ConfigMap", "imds-detour")["data"]["image"]
    else:
        image = detour_container(kind)["image"]
        assert detour_container(kind)["command"][0] == "imds-detourctl"
    assert (path_of(image), path_of("imds-detour")) == ("/opt/imds-detour/bin", "")
