"""The admission policy's expressions, evaluated against pods as the API server evaluates them."""

import copy
import itertools
from typing import Any

import pytest
from celpy.evaluation import CELEvalError

from tests.support.judges.kubernetes import EACH_VERSION, Manifest, Policy, complaints, find_manifest, pod_of, render

LABEL = "imds-detour"
ROLES = ("sidecar", "init")


def namespace(role: str | None) -> Manifest:
    """Return a namespace, with the label if a role is given."""
    return {"metadata": {"name": "ns", **({"labels": {LABEL: role}} if role else {})}}


def app() -> Manifest:
    """Return the pod of the example's app."""
    return pod_of(find_manifest(render("example/app"), "Deployment", "app"))


def policy(**data: str) -> Policy:
    """Return the policy with its ConfigMap, to which ``data`` is added."""
    rendered = render("admission")
    params = copy.deepcopy(find_manifest(rendered, "ConfigMap", "imds-detour"))
    params["data"].update(data)
    return Policy(find_manifest(rendered, "MutatingAdmissionPolicy", "imds-detour"), params)


@pytest.mark.parametrize("role", ROLES)
def test_policy_and_component_add_the_same_container(role: str) -> None:
    """Policy and component add the same container, but for the mock's name, which is in another namespace."""
    expected = pod_of(find_manifest(render(f"example/{role}"), "Deployment", "app"))["spec"]
    expected["initContainers"][0]["env"][0]["value"] = "mock-metadata.imds-detour.svc.cluster.local."
    before = app()
    after = policy().mutate(before, namespace(role))
    assert (after["spec"], after["metadata"]) == (expected, before["metadata"])


@EACH_VERSION
@pytest.mark.parametrize("role", ROLES)
def test_mutated_pod_is_valid(role: str, version: tuple[int, ...]) -> None:
    """The official schema of each version with sidecars accepts the mutated pod."""
    assert complaints(policy().mutate(app(), namespace(role)), version) == ""


def test_policy_adds_the_first_init_container_once() -> None:
    """The container comes before the pod's init containers, in their order; a pod that has it is not changed."""
    pod = app()
    pod["spec"]["initContainers"] = [{"name": name, "image": name} for name in ("migrate", "warm-up")]
    for role in ROLES:
        once = policy().mutate(pod, namespace(role))
        assert [item["name"] for item in once["spec"]["initContainers"]] == ["imds-detour", "migrate", "warm-up"]
        assert policy().mutate(once, namespace(role)) == once


def test_policy_ignores_windows_pods() -> None:
    """A pod for Windows is not changed, since Windows has no netfilter."""
    pod = app()
    pod["spec"]["os"] = {"name": "windows"}
    assert policy().mutate(pod, namespace("sidecar")) == pod
    pod["spec"]["os"] = {"name": "linux"}
    assert policy().mutate(pod, namespace("sidecar")) != pod


def test_pod_label_overrides_the_namespace_label() -> None:
    """The pod's label overrides the namespace's, and works without one."""
    pod = app()
    pod["metadata"]["labels"][LABEL] = "init"
    for labelled in ("sidecar", None):
        assert policy().mutate(pod, namespace(labelled))["spec"]["initContainers"][0]["command"][1] == "init"


def test_config_map_settings_reach_the_container() -> None:
    """The entries of the ConfigMap that begin with MOCK_ reach the container, and no others."""
    made = policy(MOCK_TIMEOUT="60", MOCK_LOG="json", note="other").mutate(app(), namespace("init"))
    environ = {item["name"]: item["value"] for item in made["spec"]["initContainers"][0]["env"]}
    assert {name: environ[name] for name in ("MOCK_TIMEOUT", "MOCK_LOG")} == {"MOCK_TIMEOUT": "60", "MOCK_LOG": "json"}
    assert set(environ) == {"MOCK_HOSTNAME", "MOCK_PORT", "MOCK_TIMEOUT", "MOCK_LOG"}


def test_missing_image_refuses_the_pod() -> None:
    """Without an image in the ConfigMap the expression fails, and failurePolicy Fail refuses the pod."""
    manifest = find_manifest(render("admission"), "MutatingAdmissionPolicy", "imds-detour")
    params = copy.deepcopy(find_manifest(render("admission"), "ConfigMap", "imds-detour"))
    del params["data"]["image"]
    with pytest.raises(CELEvalError):
        Policy(manifest, params).mutate(app(), namespace("sidecar"))
    assert manifest["spec"]["failurePolicy"] == "Fail"


def bindings() -> list[Manifest]:
    """Return the policy's bindings."""
    return [item for item in render("admission") if item["kind"] == "MutatingAdmissionPolicyBinding"]


def selects(selector: Manifest | None, labels: dict[str, str]) -> bool:
    """Return whether a label selector with the operators In and DoesNotExist matches these labels."""
    checks: dict[str, Any] = {
        "In": lambda key, values: labels.get(key) in values,
        "DoesNotExist": lambda key, _values: key not in labels,
    }
    expressions = (selector or {}).get("matchExpressions", ())
    return all(checks[item["operator"]](item["key"], item.get("values")) for item in expressions)


@pytest.mark.parametrize(
    ("of_pod", "of_namespace"), [*itertools.product((None, *ROLES, "off"), (None, *ROLES, "enabled"))]
)
def test_pod_matches_at_most_one_binding(of_pod: str | None, of_namespace: str | None) -> None:
    """The pod's label decides, else the namespace's. A value other than a role matches no binding."""
    matching = [
        item["metadata"]["name"]
        for item in bindings()
        for rules in [item["spec"]["matchResources"]]
        if selects(rules.get("namespaceSelector"), {LABEL: of_namespace} if of_namespace else {})
        and selects(rules.get("objectSelector"), {LABEL: of_pod} if of_pod else {})
    ]
    assert len(matching) == ((of_pod or of_namespace) in ROLES)


def test_bindings_refer_to_policy_and_config_map_and_ignore_the_mock() -> None:
    """Each binding has the policy and the ConfigMap, denies pods without it, and never matches the mock."""
    rendered = render("admission")
    mock = pod_of(find_manifest(render("mock"), "Deployment", "mock-metadata"))
    for binding in bindings():
        assert not selects(binding["spec"]["matchResources"]["objectSelector"], mock["metadata"]["labels"])
        assert find_manifest(rendered, "MutatingAdmissionPolicy", binding["spec"]["policyName"])
        where = binding["spec"]["paramRef"]
        assert find_manifest(rendered, "ConfigMap", where["name"])["metadata"]["namespace"] == where["namespace"]
        assert where["parameterNotFoundAction"] == "Deny"
