"""deploy/kubernetes as kubectl renders it: valid for each supported version, least privilege, one image setting."""

import json
import os
import re
from pathlib import Path

import pytest
import yaml

from imds_detour import __version__
from imds_detour.config.variables import BY_NAME
from tests.support.judges import kubernetes
from tests.support.judges.kubernetes import (
    DEPLOY,
    EACH_VERSION,
    Manifest,
    complaints,
    find_manifest,
    pod_of,
    render,
    render_overlay,
    settings_of,
)

STABLE_POLICY, BETA_POLICY = (1, 36), (1, 34)
"""KEP-3962: admissionregistration.k8s.io/v1 and v1beta1 have MutatingAdmissionPolicy from these versions on."""
EVERYWHERE = (
    *("mock", "admission/namespaced", "network-policy"),
    *("example/app", "example/namespace", "example/sidecar", "example/init", "example/eks"),
)
SINCE = {
    **dict.fromkeys(EVERYWHERE, kubernetes.FIRST_WITH_SIDECARS),
    "admission": STABLE_POLICY,
    "admission-v1beta1": BETA_POLICY,
}
COMPONENTS = ("sidecar", "init")
OPERATORS = ("monitoring",)
"""Folders for the API of an operator, of which there is no official schema."""
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
    return first_container(render(f"example/{folder}"))


def first_container(rendered: list[Manifest], kind: str = "Deployment") -> Manifest:
    """Return the first init container of the workload ``app``."""
    container: Manifest = pod_of(find_manifest(rendered, kind, "app"))["spec"]["initContainers"][0]
    return container


def test_every_kustomization_is_tested() -> None:
    """Each folder with a kustomization.yaml is in the lists of these tests."""
    folders = {os.path.relpath(at, DEPLOY) for at, _, files in os.walk(DEPLOY) if "kustomization.yaml" in files}
    assert folders == {*SINCE, *COMPONENTS, *OPERATORS}


@EACH_VERSION
@pytest.mark.parametrize("folder", SINCE)
def test_manifests_are_valid_for_each_kubernetes_version(folder: str, version: tuple[int, ...]) -> None:
    """The official schema of each version accepts the manifests, unless the version lacks their API."""
    objections = {f"{item['kind']}: {objection}" for item in render(folder) if (objection := complaints(item, version))}
    if version >= SINCE[folder]:
        assert objections == set()
    else:
        # ValidatingAdmissionPolicy is stable from 1.30 on (KEP-3488).
        missing = re.compile("find schema for kind (Mutating|Validating)AdmissionPolicy")
        assert all(missing.search(objection) for objection in objections)
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
    """A component adds the first init container and its volume to each kind of workload, and changes no mock."""
    app = find_manifest(render("example/app"), "Deployment", "app")
    app["spec"]["template"]["spec"]["initContainers"] = [{"name": "migrate", "image": "migrate:1"}]
    job = {**app, "apiVersion": "batch/v1", "kind": "Job", "spec": {"template": app["spec"]["template"]}}
    cronjob = {**job, "kind": "CronJob", "spec": {"schedule": "@daily", "jobTemplate": {"spec": job["spec"]}}}
    (tmp_path / "work.yaml").write_text(yaml.safe_dump_all([app, {**app, "kind": "StatefulSet"}, job, cronjob]))
    rendered = render_overlay(tmp_path, ["mock"], ["work.yaml"], components=[folder])
    added = []
    for kind in ("Deployment", "StatefulSet", "Job", "CronJob"):
        pod = pod_of(find_manifest(rendered, kind, "app"))["spec"]
        first, second = pod["initContainers"]
        assert (first["name"], second) == ("imds-detour", {"name": "migrate", "image": "migrate:1"})
        added.append((first, pod.pop("volumes")))
        pod["initContainers"] = [second]
        assert pod == app["spec"]["template"]["spec"]
        assert complaints(find_manifest(rendered, kind, "app"), kubernetes.VERSIONS[-1]) == ""
    assert added == [added[0]] * 4
    unchanged = find_manifest(render("mock"), "Deployment", "mock-metadata")
    assert find_manifest(rendered, "Deployment", "mock-metadata") == unchanged


def test_sidecar_and_init_container_differ_only_in_role() -> None:
    """The sidecar differs from the init container in restart policy, command, startup probe and its port."""
    sidecar, init = detour_container("sidecar"), detour_container("init")
    assert sidecar.pop("restartPolicy") == "Always"
    assert sidecar.pop("command")[:3] == ["imds-detourctl", "sidecar", "--keep"]
    assert init.pop("command") == ["imds-detourctl", "init"]
    del sidecar["startupProbe"], sidecar["ports"], sidecar["envFrom"], init["envFrom"]
    assert sidecar == init


def test_sidecar_is_probed_by_http_at_its_port() -> None:
    """The startup probe asks /readyz each second, without a process, at the port of the metrics and of --listen."""
    container = detour_container("sidecar")
    probe = container["startupProbe"]
    assert (probe["httpGet"]["path"], probe["periodSeconds"], "exec" in probe) == ("/readyz", 1, False)
    (port,) = container["ports"]
    listen = container["command"][container["command"].index("--listen") + 1]
    assert port == {"name": "detour-metrics", "containerPort": probe["httpGet"]["port"]}
    assert listen == f"[::]:{port['containerPort']}"


def test_init_container_waits_without_a_limit() -> None:
    """A pod with restartPolicy Never runs a failed init container once, so it waits for the mock without a limit."""
    rendered = render("example/init")
    assert settings_of(first_container(rendered), rendered)["MOCK_TIMEOUT"] == "0"


@pytest.mark.parametrize("folder", COMPONENTS)
def test_container_runs_without_token_and_reports_its_end(folder: str) -> None:
    """No service account token is mounted, a loaded image is used, the last line is shown, and the node is known."""
    container = detour_container(folder)
    volumes = pod_of(find_manifest(render(f"example/{folder}"), "Deployment", "app"))["spec"]["volumes"]
    assert volumes == [{"name": "imds-detour-no-token", "emptyDir": {"medium": "Memory"}}]
    path = "/var/run/secrets/kubernetes.io/serviceaccount"  # ServiceAccount admission skips a container that has it
    assert container["volumeMounts"] == [{"name": volumes[0]["name"], "mountPath": path, "readOnly": True}]
    assert (container["imagePullPolicy"], container["terminationMessagePolicy"]) == (
        "IfNotPresent",
        "FallbackToLogsOnError",
    )
    fields = {item["name"]: item["valueFrom"]["fieldRef"]["fieldPath"] for item in container["env"]}
    assert fields == {"K8S_POD_IP": "status.podIP", "K8S_HOST_IP": "status.hostIP"}


def test_images_have_the_packages_version() -> None:
    """Each manifest names the image of this version: "latest" would be pulled each time."""
    data = find_manifest(render("admission"), "ConfigMap", "imds-detour")["data"]
    images = {detour_container(folder)["image"] for folder in COMPONENTS} | {data["image"]}
    assert images == {f"imds-detour-ctl:{__version__}"}
    mock = pod_of(find_manifest(render("example/eks"), "Deployment", "mock-pod-identity"))["spec"]["containers"][0]
    assert mock["image"] == f"imds-detour-mock:{__version__}"


def test_example_app_ends_its_line() -> None:
    """The example's app ends the answer with a newline; without one, ``kubectl logs`` may print nothing."""
    command = pod_of(find_manifest(render("example/app"), "Deployment", "app"))["spec"]["containers"][0]["command"]
    assert re.search(r"instance-id; echo;", command[-1])


def test_mock_serves_until_each_node_has_forgotten_it() -> None:
    """The mock stops 3 s after its removal from the Service, which has an IPv6 address where the cluster has both."""
    mock = pod_of(find_manifest(render("mock"), "Deployment", "mock-metadata"))["spec"]["containers"][0]
    assert mock["lifecycle"]["preStop"] == {"sleep": {"seconds": 3}}
    assert find_manifest(render("mock"), "Service", "mock-metadata")["spec"]["ipFamilyPolicy"] == "PreferDualStack"


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
    assert container["resources"]["limits"] == {"memory": container["resources"]["requests"]["memory"]}


@pytest.mark.parametrize(
    ("folder", "name"),
    [("example/app", "app"), ("mock", "mock-metadata"), ("example/eks", "mock-pod-identity")],
)
def test_app_and_mock_pass_the_restricted_level(folder: str, name: str) -> None:
    """The pods of the app and of each mock without imds-detour pass the "restricted" level."""
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
    rendered = render(f"example/{folder}")
    settings = settings_of(first_container(rendered), rendered)
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
    images = [{"name": "imds-detour-ctl", "newName": "registry.example/tools/imds-detour", "newTag": "1.2.3"}]
    pod = pod_of(find_manifest(render_overlay(tmp_path, [f"example/{folder}"], images=images), "Deployment", "app"))[
        "spec"
    ]
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
