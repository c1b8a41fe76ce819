"""The admission policy's expressions, evaluated against pods as the API server evaluates them."""

import copy
import itertools
import json
import re
from typing import Any

import pytest
from celpy.evaluation import CELEvalError

from tests.support.judges.cel_types import check_policy
from tests.support.judges.kubernetes import (
    EACH_VERSION,
    Manifest,
    Policy,
    complaints,
    find_manifest,
    pod_of,
    refusals,
    render,
    settings_of,
)

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
    """Policy and component add the same container and volume; the settings name a mock in another namespace."""
    rendered = render(f"example/{role}")
    expected = pod_of(find_manifest(rendered, "Deployment", "app"))["spec"]
    before = app()
    after = policy().mutate(before, namespace(role))
    ours, theirs = after["spec"]["initContainers"][0], expected["initContainers"][0]
    other = {"MOCK_HOSTNAME": "mock-metadata.imds-detour.svc.cluster.local.", "MOCK_TIMEOUT": "0"}
    assert settings_of(ours, []) == {**settings_of(theirs, rendered), **other}
    del theirs["envFrom"]
    ours["env"] = [item for item in ours["env"] if "value" not in item]
    assert (after["spec"], after["metadata"]) == (expected, before["metadata"])


def policies() -> list[Manifest]:
    """Return the admission policies of both kinds."""
    return [item for item in render("admission") if item["kind"].endswith("AdmissionPolicy")]


def test_policies_pass_the_compilers_type_checks() -> None:
    """The API server's compiler accepts each expression, and each has the type that its place requires."""
    assert {item["metadata"]["name"]: check_policy(item) for item in policies()} == {
        "imds-detour": [],
        "imds-detour-namespaces": [],
        "imds-detour-pods": [],
    }


@pytest.mark.parametrize(
    ("place", "right", "wrong", "problem"),
    [
        ("variables", "string(has", "(has", "the elements differ in type"),  # as every API server refused it once
        ("mutations", '"memory": params.data["limits.memory"]', '"a": 1, "b": "2"', "values of a map: the elements"),
        ("mutations", "variables.role ==", "variables.rule ==", "undeclared reference to 'variables_rule'"),
        ("mutations", 'op: "add"', "op: 1", "expected type of field 'op' is 'string'"),
        ("matchConditions", '!= "windows"', "+ 1", "is not assignable|not BOOL|no matching overload"),
    ],
)
def test_wrong_types_are_refused(place: str, right: str, wrong: str, problem: str) -> None:
    """Negative control: the type check finds mixed lists and maps, unknown names and wrong types."""
    manifest = find_manifest(render("admission"), "MutatingAdmissionPolicy", "imds-detour")
    text = json.dumps(manifest["spec"][place])
    change = json.dumps(right)[1:-1], json.dumps(wrong)[1:-1]
    assert change[0] in text
    manifest["spec"][place] = json.loads(text.replace(*change))
    assert re.search(problem, "\n".join(check_policy(manifest)))


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


@pytest.mark.parametrize(
    ("field", "unsuitable", "suitable"),
    [("os", {"name": "windows"}, {"name": "linux"}), ("hostNetwork", True, False)],
)
def test_policy_ignores_pods_without_a_network_to_redirect(field: str, unsuitable: object, suitable: object) -> None:
    """A pod for Windows, which has no netfilter, or in its node's network is not changed."""
    pod = app()
    pod["spec"][field] = unsuitable
    assert policy().mutate(pod, namespace("sidecar")) == pod
    pod["spec"][field] = suitable
    assert policy().mutate(pod, namespace("sidecar")) != pod


def refused(pod: Manifest, of_namespace: str | None) -> str:
    """Return the messages with which the pods' policy refuses a pod."""
    manifest = find_manifest(render("admission"), "ValidatingAdmissionPolicy", "imds-detour-pods")
    return "; ".join(refusals(manifest, pod, namespace(of_namespace)))


@pytest.mark.parametrize(
    ("of_pod", "of_namespace", "message"),
    [
        (None, "sidecar", ""),
        (None, "init", ""),
        ("init", None, ""),
        ("off", "sidecar", ""),
        (None, "off", ""),
        (None, "sidecars", "imds-detour=sidecars of the pod or its namespace has no effect"),
        ("true", "sidecar", "imds-detour=true of the pod or its namespace has no effect"),
        ("Init", None, "imds-detour=Init of the pod or its namespace has no effect"),
    ],
)
def test_misspelt_labels_refuse_the_pod(of_pod: str | None, of_namespace: str | None, message: str) -> None:
    """A label without effect refuses the pod; without that, the pod would run without the redirect."""
    pod = app()
    if of_pod:
        pod["metadata"]["labels"][LABEL] = of_pod
    role = of_pod or of_namespace or ""
    if role in ROLES:
        pod = policy().mutate(pod, namespace(of_namespace))
    assert message in refused(pod, of_namespace)
    assert bool(message) == bool(refused(pod, of_namespace))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "no policy has added it"),
        ({"initContainers": [{"name": "other"}]}, "no policy has added it"),
        ({"hostNetwork": True}, "a redirect would affect the whole node"),
        ({"os": {"name": "windows"}}, "a Windows pod cannot be redirected"),
    ],
)
def test_pod_without_the_container_is_refused(change: Manifest, message: str) -> None:
    """In a labelled namespace a pod without the container is refused, unless its own label is "off"."""
    pod = app()
    pod["spec"].update(change)
    for role in ROLES:
        assert message in refused(pod, role)
    pod["metadata"]["labels"][LABEL] = "off"
    assert refused(pod, "sidecar") == ""


def test_misspelt_label_refuses_the_namespace() -> None:
    """A namespace with a label without effect is refused."""
    manifest = find_manifest(render("admission"), "ValidatingAdmissionPolicy", "imds-detour-namespaces")
    for role in (*ROLES, "off"):
        assert refusals(manifest, namespace(role), None) == []
    assert "imds-detour=side-car has no effect" in refusals(manifest, namespace("side-car"), None)[0]


@pytest.mark.parametrize("resource", ["pods", "namespaces"])
def test_validation_concerns_labelled_objects_only(resource: str) -> None:
    """Every labelled pod, pod of a labelled namespace, and labelled namespace is judged, and no other object."""
    name = f"imds-detour-{resource}"
    spec = find_manifest(render("admission"), "ValidatingAdmissionPolicy", name)["spec"]
    assert (spec["failurePolicy"], "paramKind" in spec) == ("Fail", False)
    assert [rule["resources"] for rule in spec["matchConstraints"]["resourceRules"]] == [[resource]]
    own = [item["spec"] for item in bindings("Validating") if item["spec"]["policyName"] == name]
    assert all(item["validationActions"] == ["Deny"] for item in own)
    rules = [item["matchResources"] for item in own]
    for of_object, of_namespace in itertools.product(({}, {LABEL: "typo"}), repeat=2):
        matching = [item for item in rules if matches(item, of_object, of_namespace)]
        assert bool(matching) == bool(of_object or (of_namespace and resource == "pods"))


def test_pod_label_overrides_the_namespace_label() -> None:
    """The pod's label overrides the namespace's, and works without one."""
    pod = app()
    pod["metadata"]["labels"][LABEL] = "init"
    for labelled in ("sidecar", None):
        assert policy().mutate(pod, namespace(labelled))["spec"]["initContainers"][0]["command"][1] == "init"


def test_config_map_settings_reach_the_container() -> None:
    """The entries of the ConfigMap that begin with MOCK_ reach the container, and no others."""
    made = policy(MOCK_TIMEOUT="60", MOCK_LOG="json", note="other").mutate(app(), namespace("init"))
    environ = settings_of(made["spec"]["initContainers"][0], [])
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


@pytest.mark.parametrize("pull", ["Always", "Never"])
def test_config_map_sets_resources_and_pull_policy(pull: str) -> None:
    """The ConfigMap sets the container's resources, with a limit on processors if it has one, and its pull policy."""
    wanted = {"requests": {"cpu": "20m", "memory": "48Mi"}, "limits": {"cpu": "20m", "memory": "48Mi"}}
    data = {f"{kind}.{name}": value for kind, values in wanted.items() for name, value in values.items()}
    container = policy(**data, imagePullPolicy=pull).mutate(app(), namespace("init"))["spec"]["initContainers"][0]
    assert (container["resources"], container["imagePullPolicy"]) == (wanted, pull)


def bindings(kind: str = "Mutating") -> list[Manifest]:
    """Return the bindings of the policies of a kind."""
    return [item for item in render("admission") if item["kind"] == f"{kind}AdmissionPolicyBinding"]


def selects(selector: Manifest | None, labels: dict[str, str]) -> bool:
    """Return whether a label selector with the operators of ``checks`` matches these labels."""
    checks: dict[str, Any] = {
        "Exists": lambda key, _values: key in labels,
        "In": lambda key, values: labels.get(key) in values,
        "DoesNotExist": lambda key, _values: key not in labels,
    }
    expressions = (selector or {}).get("matchExpressions", ())
    return all(checks[item["operator"]](item["key"], item.get("values")) for item in expressions)


def matches(rules: Manifest, of_object: dict[str, str], of_namespace: dict[str, str]) -> bool:
    """Return whether a binding's matchResources select an object by its and its namespace's labels."""
    return selects(rules.get("namespaceSelector"), of_namespace) and selects(rules.get("objectSelector"), of_object)


@pytest.mark.parametrize(
    ("of_pod", "of_namespace"), [*itertools.product((None, *ROLES, "off"), (None, *ROLES, "enabled"))]
)
def test_pod_matches_at_most_one_binding(of_pod: str | None, of_namespace: str | None) -> None:
    """The pod's label decides, else the namespace's. A value other than a role matches no binding."""
    matching = [
        item["metadata"]["name"]
        for item in bindings()
        for rules in [item["spec"]["matchResources"]]
        if matches(rules, {LABEL: of_pod} if of_pod else {}, {LABEL: of_namespace} if of_namespace else {})
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
